"""The parts of the evaluation's benchmark that can be tested without running either side."""

import dataclasses
import json
import os
import pkgutil
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from midnight.errors import MidnightError
from midnight.evaluate.encoder import load_encoder
from midnight.evaluate.entries import Model
from midnight.evaluate.images import find_class, preprocessing
from midnight.evaluate.registry import select_tasks
from midnight.evaluate.session import build_scheduler
from tests.benchmarks.scripts import load_script

TASKS = {"demo-bach": {}, "demo-pcam-10shot": {"runs": 7}, "demo-consep": {"max_steps": 6}}
TINY = {"embed_dim": 24, "depth": 1, "num_heads": 2, "reg_tokens": 4}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load_script("evaluate", monkeypatch)


@pytest.fixture
def space(script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setitem(
        script.prepare.__globals__, "WRITERS", dict.fromkeys(("bach", "patch_camelyon", "consep"), print)
    )
    effort = script.Effort("vit_small_patch14_dinov2", TINY, 28, TASKS, script.BOTH, 2)
    return script.prepare(tmp_path, effort)


def configure(script: ModuleType, space: Any, name: str, pooling: str) -> dict[str, Any]:
    """What eva is given, as it reads it."""
    content = script.measure.peer.configuration(space, space.tasks[name], pooling, Path("out"))
    return yaml.safe_load(yaml.safe_dump(content))


def arguments(value: dict[str, Any]) -> dict[str, Any]:
    return value["init_args"]


def callback(content: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [one for one in arguments(content["trainer"])["callbacks"] if one["class_path"].endswith(name)]
    return arguments(found)


@pytest.mark.parametrize("name", TASKS)
def test_both_sides_have_the_same_budget_and_optimiser(script: ModuleType, space: Any, name: str) -> None:
    content, values = configure(script, space, name, "cls"), space.tasks[name].values
    trainer, model = arguments(content["trainer"]), arguments(content["model"])
    loaders = arguments(content["data"])["dataloaders"]
    expected = dataclasses.asdict(select_tasks([name], "demo")[name].values) | TASKS[name]
    assert dataclasses.asdict(values) == expected
    assert (trainer["n_runs"], trainer["max_steps"]) == (expected["runs"], expected["max_steps"])
    assert trainer["check_val_every_n_epoch"] == values.validate_every
    assert trainer["num_sanity_val_steps"] == values.sanity_steps
    stopping = callback(content, "EarlyStopping")
    assert (stopping["patience"], stopping["min_delta"]) == (values.patience, values.min_delta)
    assert callback(content, "ModelCheckpoint")["monitor"] == space.tasks[name].monitor
    assert arguments(model["optimizer"]) == {"lr": values.lr, "weight_decay": values.weight_decay}
    assert arguments(model["lr_scheduler"]) == values.scheduler.args
    assert pkgutil.resolve_name(model["lr_scheduler"]["class_path"]) is build_scheduler(values).func
    assert loaders["train"]["batch_size"] == values.batch_size
    assert loaders["val"]["batch_size"] == values.eval_batch_size


@pytest.mark.parametrize("name", TASKS)
def test_both_sides_see_the_same_images(script: ModuleType, space: Any, name: str) -> None:
    datasets = arguments(configure(script, space, name, "cls")["data"])["datasets"]
    images = datasets.get("predict") or list(datasets.values())
    encoder = load_encoder(Model("dir", "Tiny", [28], path=str(space.model), name="tiny"), None, 28)
    assert len(images) >= 2
    for one in images:
        transforms = arguments(one)["transforms"]
        ours = preprocessing(space.effort.size, encoder.mean, encoder.std)
        assert find_class(transforms["class_path"]) is type(ours)
        assert arguments(transforms) == {"size": 28, "mean": list(encoder.mean), "std": list(encoder.std)}


def test_embeddings_are_those_of_both_poolings(script: ModuleType, space: Any) -> None:
    found = {pooling: configure(script, space, "demo-bach", pooling) for pooling in script.BOTH}
    models = {pooling: callback(content, "EmbeddingsWriter")["backbone"] for pooling, content in found.items()}
    assert "transforms" not in arguments(models["cls"])
    mean = arguments(models["cls_mean"])
    assert arguments(mean["transforms"]) == {"include_patch_tokens": True, "num_register_tokens": 4}
    assert mean["model_kwargs"]["global_pool"] == ""
    widths = [arguments(arguments(content["model"])["head"])["in_features"] for content in found.values()]
    assert widths == [24, 48]


def test_shots_are_drawn_by_the_seed_that_ours_uses(script: ModuleType, space: Any) -> None:
    data = arguments(configure(script, space, "demo-pcam-10shot", "cls")["data"])
    assert arguments(data["samplers"]["train"]) == {"num_samples": 10, "seed": 0, "reset_generator": False}
    assert not data["dataloaders"]["train"]["shuffle"]
    assert set(data["datasets"]) == {"train", "val", "test", "predict"}
    assert [arguments(one)["split"] for one in data["datasets"]["predict"]] == ["train", "val", "test"]


def test_segmentation_is_online_on_normalised_maps(script: ModuleType, space: Any) -> None:
    content = configure(script, space, "demo-consep", "maps")
    model = arguments(content["model"])
    encoder = arguments(model["encoder"])
    assert encoder["transforms"]["class_path"].endswith("ExtractPatchFeatures")
    assert "out_indices" not in encoder  # timm's maps of inner blocks are not normalised
    assert model["lr_multiplier_encoder"] == 0
    assert set(arguments(content["data"])["datasets"]) == {"train", "val"}
    assert script.measure.cells(space)[-1] == ("demo-consep", "maps")
    assert len(script.measure.cells(space)) == 5


def test_a_process_is_timed_with_its_children(script: ModuleType, tmp_path: Path) -> None:
    work = "import time\nwhile time.process_time() < 0.3: pass"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {work!r}]); print('bar\\r'); print('last')"
    reading = script.measure.run_process(["-c", code], tmp_path, os.environ)
    assert reading.told == "last"
    assert reading.cpu > 0.3 and reading.wall > 0.3
    with pytest.raises(MidnightError, match=r"(?s)failed with status 1.*ZeroDivisionError"):
        script.measure.run_process(["-c", "1 / 0"], tmp_path, os.environ)


def test_scores_of_eva_are_read(script: ModuleType, space: Any, tmp_path: Path) -> None:
    path = tmp_path / "eva" / "logs" / "session" / "results.json"
    path.parent.mkdir(parents=True)
    values = {"test/BinaryBalancedAccuracy": {"mean": 0.6, "values": [0.5, 0.7]}}
    path.write_text(json.dumps({"metrics": {"val": [{}], "test": [values]}}))
    assert script.measure.peer.read_scores(tmp_path / "eva", space.tasks["demo-pcam-10shot"]) == [0.5, 0.7]


def invent(script: ModuleType) -> tuple[list[Any], list[Any]]:
    """Two repetitions of ours and two cells of eva's."""
    measure = script.measure

    def repeat(wall: float) -> Any:
        readings = {"embed": measure.Reading(wall, 5, ""), "score": measure.Reading(10, 5, "")}
        parts = {step: {"all": wall, "imports": 4.0, "encoder": 3.0} for step in readings}
        seconds = {("demo-bach", "cls"): 2.0, ("demo-consep", "maps"): 4.0}
        return measure.Ours(readings, parts, seconds, {cell: [0.25, 0.5] for cell in seconds})

    bach = measure.Peer("demo-bach", "cls", "predict_fit", measure.Reading(70.0, 90.0, ""), 30.0, [0.25, 0.5])
    consep = measure.Peer("demo-consep", "maps", "fit", measure.Reading(50.0, 60.0, ""), None, [0.25, 0.75])
    return [repeat(10), repeat(30)], [bach, consep]


def test_the_object_has_medians_ratios_and_equal_scores(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "prepare", lambda *_: None)
    monkeypatch.setattr(script.measure, "run_all", lambda _: invent(script))
    found = json.loads(json.dumps(script.run(script.FULL, 6.0)))
    assert list(found) == ["name", "unit", "ours", "peer", "ratio", "goal", "details"]
    assert (found["ours"], found["peer"], found["ratio"]) == (30.0, 120.0, 4.0)
    assert found["details"]["totals"]["ratio_cpu"] == 15.0
    embed, score = found["details"]["ours"]
    assert (embed["wall_s"], embed["rest_s"], score["imports_s"]) == (20.0, 13.0, 4.0)
    bach, consep = found["details"]["cells"]
    assert (bach["fits_ratio"], consep["eva_fits_s"], consep["ours_fits_s"]) == (15.0, None, 4.0)
    same, other = found["details"]["scores"]
    assert (same["identical_runs"], same["largest_difference"]) == (2, 0)
    assert (other["identical_runs"], other["largest_difference"]) == (1, 0.25)
    parts = script.sections(found["details"])
    assert "| demo-consep | maps | fit | 50 | 60 |  | 4 |  |" in parts["By task and pooling"]
    assert (
        "2 scores of 4 runs in all: 30.0 s against 120.0 s, ratio 4.0 (goal 6.0); 3 runs have identical"
        in script.summary(found)
    )


def test_the_last_fit_ends_after_the_embeddings(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, space: Any
) -> None:
    """Seconds of eva's fits are counted from when its table of embeddings was written."""
    measure = script.measure

    def pretend(_: list[str], output: Path, __: Any) -> Any:
        (output / "embeddings").mkdir()
        (output / "embeddings" / "manifest.csv").touch()
        os.utime(output / "embeddings" / "manifest.csv", (0, time.time() - 20))
        return measure.Reading(50, 50, "")

    monkeypatch.setattr(measure, "run_process", pretend)
    monkeypatch.setattr(measure.peer, "read_scores", lambda *_: [0.5])
    assert measure.run_peer(space, "demo-bach", "cls").fits == pytest.approx(20, abs=2)
