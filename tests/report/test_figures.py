import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from midnight.errors import MidnightError
from midnight.report import figures
from midnight.report.figures.curves import read_metrics, smooth, thin
from midnight.report.figures.patches import components
from midnight.report.figures.tissue import read_thumbnails
from midnight.report.figures.tsne import embed_2d
from midnight.report.inline import read_figure, read_figures
from tests.report.example import ExampleTile, stained, write_run, write_tissue


def test_figures_describe_themselves_as_svg_and_png(tmp_path: Path) -> None:
    metrics = write_run(tmp_path / "run") / "metrics.jsonl"
    for suffix, kind in (("svg", "image/svg+xml"), ("png", "image/webp")):
        figures.draw_curves(metrics, tmp_path / f"curves-demo.{suffix}", "demo & <co>")
        read = read_figure(tmp_path / f"curves-demo.{suffix}")
        assert (read.kind, read.title) == ("curves", "demo & <co>")
        assert read.alt.startswith("Training curves of demo & <co>: total loss from")
        assert read.caption.startswith("200 steps. Mean cosine from")
        assert read.uri.startswith(f"data:{kind};base64,")
        assert read.width == 384


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    metrics = write_run(tmp_path / "run", 20) / "metrics.jsonl"
    for name in ("a.svg", "b.svg", "a.png", "b.png"):
        figures.draw_curves(metrics, tmp_path / name, "demo")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_metrics_pass_over_broken_lines_and_nan_and_keep_the_last_of_a_step(tmp_path: Path) -> None:
    lines = [{"step": 2, "loss": 3.0}, {"step": 1, "loss": 5.0, "dino": 1.0}, {"step": 2, "loss": 4.0}]
    text = "\n".join(map(json.dumps, lines)) + '\n{"step": 3, "loss": NaN}\n[1]\n{"step": 4, "lo'
    (tmp_path / "metrics.jsonl").write_text(text)
    series = read_metrics(tmp_path / "metrics.jsonl")
    assert series["loss"][0].tolist() == [1, 2]
    assert series["loss"][1].tolist() == [5.0, 4.0]
    assert series["dino"][1].tolist() == [1.0]


def panels(svg: Path) -> int:
    return svg.read_text().count('<g id="axes_')


def test_a_probed_run_shows_knn_beside_random_init_and_rank(tmp_path: Path) -> None:
    for probe in (False, True):
        metrics = write_run(tmp_path / f"{probe}", probe=probe) / "metrics.jsonl"
        figures.draw_curves(metrics, tmp_path / f"curves-{probe}.svg", "demo")
    plain, probed = (read_figure(tmp_path / f"curves-{probe}.svg") for probe in (False, True))
    assert panels(tmp_path / "curves-True.svg") == panels(tmp_path / "curves-False.svg") + 4 == 10
    assert "stroke-dasharray" in (tmp_path / "curves-True.svg").read_text()
    assert "kNN accuracy from 0.31 to 0.59" in probed.alt
    assert "kNN accuracy 0.59, random init 0.31, chance 0.25" in probed.caption
    assert "on 40 + 38 tiles of the run's own slides, labelled by 4 projects or cohorts" in probed.caption
    assert "on tiles of 9 of the run's slides in two stains" in probed.caption
    assert "in deviations of these (from 0.6" in probed.caption
    assert probed.alt.startswith("Demo data. ") and probed.caption.startswith("Demo data. ")
    assert "kNN" not in plain.caption and "stain" not in plain.caption and "Demo data" not in plain.alt


def test_a_probe_without_its_facts_still_shows(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", probe=True)
    (run / "probe.json").write_text("[cut o")
    (run / "model.json").write_text(json.dumps({"data": "real"}))
    figures.draw_curves(run / "metrics.jsonl", tmp_path / "curves-x.svg", "x")
    caption = read_figure(tmp_path / "curves-x.svg").caption
    assert "kNN accuracy 0.59, random init 0.31." in caption and "Demo data" not in caption


def test_smoothing_and_thinning() -> None:
    assert smooth(np.array([1.0, 2.0, 3.0]), 3).tolist() == [1.5, 2.0, 2.5]
    steps, values = thin(np.arange(5000), np.arange(5000.0), 100)
    assert (steps[0], steps[-1], len(steps)) == (0, 4999, 100)
    assert values.tolist() == steps.tolist()


@pytest.mark.parametrize("draw", ["curves", "gains", "tiles", "patches", "tsne"])
def test_nothing_to_draw_gives_a_figure_that_says_so(tmp_path: Path, draw: str) -> None:
    output = tmp_path / f"{draw}-x.png"
    calls = {
        "curves": lambda: figures.draw_curves(tmp_path / "absent", output, "run"),
        "gains": lambda: figures.draw_gains([], output),
        "tiles": lambda: figures.draw_tiles([], output, "demo"),
        "patches": lambda: figures.draw_patches(np.zeros((0, 8, 8, 3), np.uint8), {}, output),
        "tsne": lambda: figures.draw_tsne({}, output, "BACH"),
    }
    calls[draw]()
    assert read_figure(output).alt.endswith(".")


def test_tiles_are_shown_by_verdict(tmp_path: Path) -> None:
    reasons = ["accepted"] * 9 + ["hsv"] * 2
    figures.draw_tiles(
        [ExampleTile(stained(i, 32), why, 0.7, 0.9, 0.5) for i, why in enumerate(reasons)], tmp_path / "a.png", "demo"
    )
    alt = read_figure(tmp_path / "a.png").alt
    assert alt == "Example tiles of demo: 8 accepted, 2 rejected by the HSV filter."


def test_stain_variants_are_seeded_and_differ(tmp_path: Path) -> None:
    tile = stained(0, 32)
    variants = figures.variants(tile, 0.05, 3, seed=4)
    assert all((a == b).all() for a, b in zip(variants, figures.variants(tile, 0.05, 3, seed=4), strict=True))
    assert (variants[0] != variants[1]).any()
    figures.draw_stain(tile, variants, tmp_path / "stain-x.png", 0.05)
    assert "3 independent draws, σ = 0.05" in read_figure(tmp_path / "stain-x.png").caption


def test_tissue_shows_usable_slides_with_their_masks(tmp_path: Path) -> None:
    index = write_tissue(tmp_path)
    thumbnails, total = read_thumbnails(index, 3)
    assert total == 5
    assert [thumbnail.name for thumbnail in thumbnails] == ["s00", "s02", "s04"]
    assert thumbnails[0].mask[48, 60] and not thumbnails[0].mask[0, 0]
    figures.draw_tissue(index, tmp_path / "tissue-demo.png", "demo")
    assert "s04 8.2 mm²" in read_figure(tmp_path / "tissue-demo.png").alt


def test_patch_tokens_leave_class_and_register_tokens_out(tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save_file

    kwargs = {"depth": 1, "embed_dim": 24, "num_heads": 2, "img_size": 28, "reg_tokens": 4, "dynamic_img_size": True}
    model = timm.create_model("vit_small_patch14_reg4_dinov2", num_classes=0, **kwargs)
    save_file(model.state_dict(), tmp_path / "teacher.safetensors")
    card = {"arch": "vit_small_patch14_reg4_dinov2", "kwargs": kwargs, "img_size": 28, "patch_size": 14, "registers": 4}
    (tmp_path / "model.json").write_text(json.dumps(card | {"mean": [0.5] * 3, "std": [0.5] * 3}))
    half = np.zeros((1, 56, 56, 3), np.uint8)
    half[:, :, 28:] = 255
    tokens = figures.patch_tokens(tmp_path, half)
    assert tokens.shape == (1, 2, 2, 24)
    assert figures.patch_tokens(tmp_path, half, 56).shape == (1, 4, 4, 24)
    swapped = figures.patch_tokens(tmp_path, half[:, :, ::-1])
    assert np.abs(tokens - swapped).max() > 1e-3


def test_components_are_colours_and_find_the_dominant_direction() -> None:
    rng = np.random.default_rng(0)
    ramp = np.linspace(-5, 5, 36).reshape(6, 6)
    tokens = rng.normal(0, 0.01, (2, 6, 6, 8))
    tokens[..., 2] += ramp
    colours = components(tokens)
    assert colours.shape == (2, 6, 6, 3)
    assert colours.min() >= 0 and colours.max() <= 1
    assert abs(np.corrcoef(colours[0, ..., 0].ravel(), ramp.ravel())[0, 1]) > 0.99


def test_components_of_constant_tokens_are_grey() -> None:
    assert (components(np.ones((1, 4, 4, 5))) == 0.5).all()
    assert components(np.random.default_rng(0).normal(size=(1, 1, 2, 2))).shape == (1, 1, 2, 3)


def test_tsne_is_seeded_and_separates_clusters() -> None:
    rng = np.random.default_rng(0)
    features = np.concatenate([rng.normal(0, 1, (20, 8)), rng.normal(20, 1, (20, 8))])
    places = embed_2d(features, 3)
    assert (places == embed_2d(features, 3)).all()
    gap = np.linalg.norm(places[:20].mean(0) - places[20:].mean(0))
    assert gap > 2 * np.linalg.norm(places[:20] - places[:20].mean(0), axis=1).mean()


def write_embeddings(folder: Path, features: int, **columns: list[Any]) -> Path:
    import pandas as pd

    np.save(folder / "features.npy", np.zeros((features, 4), np.float32))
    pd.DataFrame(columns).to_parquet(folder / "samples.parquet")
    return folder


def test_embeddings_without_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MidnightError, match="has no classes"):
        figures.read_embeddings(write_embeddings(tmp_path, 3, name=list("abc"), target=[None, 0.0, 1.0]))
    with pytest.raises(MidnightError, match="3 features but 2 samples"):
        figures.read_embeddings(write_embeddings(tmp_path, 3, name=list("ab"), target=[0.0, 1.0]))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["Benign/1.tif", "Normal/2.tif", "Normal/3.tif"], ["Benign", "Normal", "Normal"]),
        (["x/1.tif", "x/2.tif", "x/3.tif"], ["class 0", "class 1", "class 1"]),
        (["1", "2", "3"], ["class 0", "class 1", "class 1"]),
    ],
)
def test_classes_are_called_like_their_folders(tmp_path: Path, names: list[str], expected: list[str]) -> None:
    _, classes = figures.read_embeddings(write_embeddings(tmp_path, 3, name=names, target=[0.0, 1.0, 1.0]))
    assert classes.tolist() == expected


def test_a_file_that_is_no_figure_is_named(tmp_path: Path) -> None:
    (tmp_path / "curves-x.svg").write_text("<svg")
    with pytest.raises(MidnightError, match=r"curves-x\.svg"):
        read_figures([tmp_path / "curves-x.svg"])
