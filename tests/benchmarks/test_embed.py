"""The parts of the benchmark of features that can be tested without timing anything."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from tests.benchmarks.scripts import load_script
from tests.tissue.small_slides import tissue_image, write_slide

CPU = torch.device("cpu")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load_script("embed", monkeypatch)


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    return write_slide(tmp_path / "slide.svs", tissue_image(1400, 1600, [(100, 100, 1200, 1300)]), 0.25)


def tiny(script: ModuleType) -> object:
    kwargs = {"patch_size": 28, "embed_dim": 24, "depth": 1, "num_heads": 2}
    return script.Case("tiny", "vit_tiny_patch16_224", 8, kwargs, 56)


def test_both_sides_give_the_same_features_of_the_same_tiles(script: ModuleType, slide: Path, tmp_path: Path) -> None:
    case = tiny(script)
    encoder = script.build(case, CPU)
    features, coords = script.read(script.ours(slide, encoder, case, 0.5, 2, tmp_path / "ours"))
    made = script.peer(slide, coords, encoder, case, 2.0, 0, tmp_path / "peer")
    others, same = script.read(made)
    np.testing.assert_array_equal(coords, same)
    assert len(coords) > 50
    assert script.agreement(features, others) > 0.95
    assert script.agreement(features, others[::-1]) < 0.5


def test_the_object_has_the_keys_of_all_benchmarks(
    script: ModuleType, slide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "make_slides", lambda folder, plans: [slide])
    found = script.run(script.Effort((tiny(script),), 0, 1), slide.parent, CPU, 0)
    assert list(found) == ["name", "unit", "ours", "peer", "ratio", "goal", "details"]
    model = found["details"]["models"]["tiny"]
    assert found["ratio"] == model["ratio"] == pytest.approx(found["ours"] / found["peer"], rel=0.01)
    page = script.sections(found["details"])["tiny, cpu, 0 workers"]
    assert "| trident's way |" in page and f"| {model['tiles']} |" in page


def test_a_level_is_taken_as_trident_takes_it(script: ModuleType) -> None:
    from embed_support.sides import best_level

    assert best_level((1.0, 4.0, 16.0), 2.0) == 0
    assert best_level((1.0, 2.0001, 4.0), 2.0) == 1
    assert best_level((1.0, 4.0003, 16.0), 4.0) == 1
    assert best_level((1.0, 4.0, 16.0), 8.0) == 1
    assert best_level((1.0,), 0.5) == 0
