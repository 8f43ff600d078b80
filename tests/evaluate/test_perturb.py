from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torchvision import tv_tensors

from midnight.config import Evaluation
from midnight.errors import MidnightError
from midnight.evaluate import registry
from midnight.evaluate.embed import embed
from midnight.evaluate.entries import Perturbation, Task
from midnight.evaluate.heads import fit_heads
from midnight.evaluate.images import preprocessing, preprocessing_for
from midnight.evaluate.perturb import join_base, perturb, shift_stain
from midnight.evaluate.records import read_record
from midnight.evaluate.score import score_tasks
from midnight.evaluate.store import Embeddings, read_embeddings
from midnight.tiles.augment.hed import DENSITIES, HED_FROM_RGB
from tests.evaluate.eva_example import MODELS, TASKS, write_patch_camelyon

HALF = (0.5, 0.5, 0.5)
VARIANTS = (
    TASKS.replace(
        "tasks:\n",
        "tasks:\n  shots-stain: {variant_of: shots, perturb: {hed_sigma: 0.2}}\n"
        "  valid-zoom: {variant_of: valid, perturb: {magnification: 2}}\n",
    )
    + """
  valid:
    kind: tile
    label: Validation
    column: bach
    metric: BinaryBalancedAccuracy
    scored: val
    dataset: {class_path: midnight.evaluate.relaxed.PatchCamelyon, root: pcam, splits: {train: train, val: val}}
    # Small batches: all runs start from the same head, and on one batch of everything they would stay the same.
    protocols: {demo: {<<: *linear, batch_size: 16, lr: 0.1, validate_every: 1}}
"""
)


@pytest.fixture
def tasks(tmp_path: Path) -> dict[str, Task]:
    (tmp_path / "variants.yaml").write_text(VARIANTS)
    return registry.select_tasks(["shots-stain", "valid-zoom"], "demo", tmp_path / "variants.yaml")


def noise(seed: int, height: int = 40, width: int = 30) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(90, 230, (3, height, width), generator=generator, dtype=torch.uint8)


# Pixels


def test_a_stain_shift_is_a_function_of_the_image_and_moves_its_stains() -> None:
    image = noise(0)
    first = shift_stain(image, 0.2)
    assert torch.equal(first, shift_stain(image.clone(), 0.2))
    assert first.shape == image.shape and first.dtype == torch.uint8
    assert torch.equal(shift_stain(image, 0), image)

    def stains(pixels: torch.Tensor) -> np.ndarray:
        return DENSITIES[pixels.flatten(1).T.numpy()] @ HED_FROM_RGB

    def factors(seed: int) -> np.ndarray:
        before, after = stains(noise(seed)), stains(shift_stain(noise(seed), 0.1))
        return np.array([np.polyfit(before[:, stain], after[:, stain], 1)[0] for stain in range(3)])

    drawn = np.array([factors(seed) for seed in range(8)])
    assert (np.abs(drawn - 1) < 0.12).all()
    assert (drawn.std(0) > 0.02).all()


def test_magnification_shows_the_centre() -> None:
    image = torch.arange(3 * 40 * 30).reshape(3, 40, 30).to(torch.uint8)
    assert torch.equal(perturb(image, Perturbation(magnification=1.25)), image[:, 4:36, 3:27])
    assert torch.equal(perturb(image, Perturbation()), image)


def test_preprocessing_follows_the_perturbation(tasks: dict[str, Task]) -> None:
    image = tv_tensors.Image(noise(1))
    plain, zoomed = (preprocessing_for(tasks[name], "val", 20, HALF, HALF) for name in ("valid", "valid-zoom"))
    assert torch.equal(plain(image), preprocessing(20, HALF, HALF)(image))
    shown, target = zoomed(image, torch.tensor(3))
    assert torch.equal(shown, plain(tv_tensors.Image(image[:, 10:30, 7:22])))
    assert target == 3
    shifted = preprocessing_for(tasks["shots-stain"], "test", 20, HALF, HALF)(image)
    assert 0.01 < (shifted - plain(image)).abs().mean() < 0.5


# Registry


def test_a_variant_embeds_the_scored_split_alone(tasks: dict[str, Task]) -> None:
    assert list(tasks) == ["shots", "shots-stain", "valid", "valid-zoom"]
    for name, role in (("shots-stain", "test"), ("valid-zoom", "val")):
        variant, base = tasks[name], tasks[tasks[name].variant_of]
        assert variant.dataset.splits == {role: base.dataset.splits[role]}
        assert (variant.column, variant.scored, variant.values) == (name, "test", base.values)
        assert registry.data_settings(variant) != registry.data_settings(base)
    assert tasks["valid-zoom"].label == "Validation, magnification × 2"


# Heads


def synthetic(splits: dict[str, int], dim: int = 6, seed: int = 0, **index: object) -> Embeddings:
    rng = np.random.default_rng(seed)
    split = np.repeat(list(splits), list(splits.values()))
    target = np.arange(len(split)) % 2
    features = rng.normal(size=(len(split), 2 * dim)).astype(np.float32)
    features[:, 0] += target
    names = [str(row) for row in range(len(split))]
    samples = pd.DataFrame({"split": split, "name": names, "target": target * 1.0, "group": names})
    facts = {"count": len(split), "model_hash": "m", "data_hash": "d", "size": 28, "key": "k"}
    return Embeddings(features, samples, facts | index)


def part(stored: Embeddings, split: str, **index: object) -> Embeddings:
    rows = stored.rows(split)
    return Embeddings(stored.features[rows].copy(), stored.samples.iloc[rows].copy(), stored.index | index)


@pytest.mark.parametrize(("variant", "role"), [("shots-stain", "test"), ("valid-zoom", "val")])
def test_heads_are_those_of_the_base_task(tasks: dict[str, Task], variant: str, role: str) -> None:
    base = synthetic({"train": 64, "val": 41, "test": 37})
    same = part(base, role)
    expected = fit_heads(tasks[tasks[variant].variant_of], base, "cls_mean", "cpu", 3)
    assert fit_heads(tasks[variant], join_base(tasks[variant], same, base), "cls_mean", "cpu", 3) == expected
    assert len(set(expected)) > 1
    other = part(base, role)
    other.features[:] = -other.features
    assert fit_heads(tasks[variant], join_base(tasks[variant], other, base), "cls_mean", "cpu", 3) != expected


def test_other_images_or_models_are_refused(tasks: dict[str, Task]) -> None:
    base = synthetic({"train": 8, "val": 4, "test": 4})
    for wrong in (part(base, "val"), part(base, "test", model_hash="other"), part(base, "test", size=56)):
        with pytest.raises(MidnightError, match="task shots-stain: not of the images that shots has"):
            join_base(tasks["shots-stain"], wrong, base)


# The whole way


def test_embedded_and_scored_like_any_task(
    make_model: Callable[[int], Path],
    use_registry: Callable[[str, str], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_patch_camelyon(tmp_path / "pcam")
    use_registry(VARIANTS, MODELS)
    evaluation = Evaluation(protocol="demo", data_root=str(tmp_path), accelerator="cpu", workers=0, batch_size=16)
    names = ["valid", "valid-zoom"]
    folders = {name: tmp_path / "embeddings" / name for name in names}
    embed("tiny", make_model(0), 28, names, evaluation, folders)
    stored = {name: read_embeddings(folder) for name, folder in folders.items()}
    assert stored["valid-zoom"].index["counts"] == {"val": 24}
    assert stored["valid"].index["counts"] == {"train": 48, "val": 24}
    zoomed, plain = stored["valid-zoom"].features, stored["valid"].features[stored["valid"].rows("val")]
    assert zoomed.shape == plain.shape and not np.allclose(zoomed, plain, atol=1e-3)

    outputs = {("cls", name): tmp_path / "out" / f"{name}.json" for name in names}
    score_tasks("tiny", make_model(0), 28, names, ["cls"], evaluation, folders, outputs, "demo", 0)
    record = read_record(outputs["cls", "valid-zoom"])
    assert (record.column, record.split, record.n_runs) == ("valid-zoom", "test", 3)
    assert record.extra == {"variant_of": "valid", "perturbation": "magnification × 2"}
    assert read_record(outputs["cls", "valid"]).extra == {}
    with monkeypatch.context() as patch:  # a cell that is cached needs no copy of all features
        patch.setattr("midnight.evaluate.perturb.join_base", lambda *_: pytest.fail("joined again"))
        score_tasks("tiny", make_model(0), 28, names, ["cls"], evaluation, folders, outputs, "demo", 0)
    with pytest.raises(MidnightError, match="task valid-zoom: no embeddings of valid given"):
        score_tasks(
            "tiny", make_model(0), 28, ["valid-zoom"], ["cls"], evaluation, {"valid-zoom": folders["valid-zoom"]},
            outputs, "demo", 1,
        )  # fmt: skip
