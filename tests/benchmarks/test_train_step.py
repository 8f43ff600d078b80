"""The parts of the training step's benchmark that can be tested without timing anything."""

import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests.benchmarks.scripts import load_script

REPOSITORY = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load_script("train_step", monkeypatch)


def tiny(script: ModuleType, drop_path: float = 0.0, arch: str = "vit_small_patch14_dinov2") -> object:
    kwargs = {"embed_dim": 24, "depth": 2, "num_heads": 2}
    return script.Case("tiny", arch, 5, drop_path, 40, kwargs, 16, 56, 28, 2, {"images_per_s": 1e9})


@pytest.mark.parametrize("arch", ["vit_small_patch14_dinov2", "vit_giant_patch14_reg4_dinov2"])
def test_both_sides_compute_the_same_losses_gradients_and_steps(script: ModuleType, arch: str) -> None:
    sides = {name: make(tiny(script, arch=arch), CPU) for name, make in script.SIDES.items()}
    losses = {name: side.loss() for name, side in sides.items()}
    torch.testing.assert_close(losses["ours"], losses["plain"], atol=1e-5, rtol=1e-5)
    for loss in losses.values():
        loss.backward()
    ours, plain = (dict(side.student.named_parameters()) for side in sides.values())
    assert ours.keys() == plain.keys()
    for name in ours:
        torch.testing.assert_close(ours[name].grad, plain[name].grad, atol=1e-4, rtol=1e-3, msg=name)
    before = sides["ours"].teacher.dino_head.prototypes.clone()
    for side in sides.values():
        side.student.zero_grad()
        assert side.step() == 5
    teachers = [side.teacher.dino_head.prototypes for side in sides.values()]
    assert not torch.equal(teachers[0], before)
    torch.testing.assert_close(*teachers, atol=1e-6, rtol=1e-5)


def test_dropped_residuals_are_arithmetic_saved(script: ModuleType) -> None:
    """Of 10 and 10 samples 5 are kept, so half of the student's blocks is left, and nothing of the plain side's."""
    counts = {}
    for drop_path in (0.0, 0.5):
        for name, make in script.SIDES.items():
            counts[name, drop_path] = script.measure.flops(make(tiny(script, drop_path), CPU))
    assert counts["plain", 0.5] == counts["plain", 0.0] == pytest.approx(counts["ours", 0.0], rel=0.01)
    assert 0.5 < counts["ours", 0.5] / counts["ours", 0.0] < 0.8


def test_operations_are_sorted_by_their_own_time(script: ModuleType) -> None:
    rows = script.measure.top_operations(script.SIDES["ours"](tiny(script), CPU), 4)
    assert [row["ms"] for row in rows] == sorted((row["ms"] for row in rows), reverse=True)
    assert len(rows) == 4 and 0 < sum(row["share"] for row in rows) <= 1


def test_matrix_products_have_a_peak(script: ModuleType) -> None:
    peak = script.measure.peak_of(CPU, 0.01)
    assert peak["peak_tflops"] > 0.001 and "CPU" in peak["device"]


def test_ratios_pair_readings_of_one_repetition(script: ModuleType) -> None:
    reading = script.measure.Reading
    ours = [reading(5, wall, 1.0) for wall in (1.0, 2.0, 4.0)]
    plain = [reading(5, wall, 3.0) for wall in (2.0, 4.0, 4.0)]
    assert script.measure.paired_ratio(ours, plain) == 2.0
    assert script.measure.paired_ratio(ours, plain, "cpu") == 3.0


def test_a_tiny_run_gives_the_agreed_object_and_a_page(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script.measure, "MATMUL", 64)
    found = script.run(script.Effort((tiny(script, 0.4),), 1, 0.0), CPU)
    assert list(found) == ["name", "unit", "ours", "peer", "ratio", "goal", "details"]
    assert found["ours"] > 0 and found["peer"] > 0 and found["goal"] is None
    assert found["ratio"] == pytest.approx(found["ours"] / found["peer"], rel=0.02)
    model = json.loads(json.dumps(found))["details"]["models"]["tiny"]
    assert model["goals"] == {"images_per_s": {"goal": 1e9, "reached": False}}
    assert all(row["peak_mb"] > row["activations_mb"] >= 0 for row in model["memory"].values())
    assert model["sides"]["ours"]["busy"] == model["sides"]["ours"]["utilisation"]
    assert model["ratio_of_arithmetic"] > 1.2
    parts = script.sections(found["details"])
    assert "| ours |" in parts["tiny"] and "aten::" in parts["tiny: operations of one step, plain"]
    assert "against" in script.summary(found)
