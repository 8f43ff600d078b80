import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import openslide
import pytest
import torch

from midnight import cli
from midnight.evaluate.encoder import embed_images, load_encoder
from midnight.mil.bags import read_mark
from midnight.mil.command import find_weights
from midnight.mil.ledger import read_table
from tests.tiles.read.damaged import damage
from tests.tissue.small_slides import tissue_image, write_slide
from tests.waiting import comes_true

CUT = ("--mpp", "0.5", "--size", "56", "--workers", "2", "--batch-size", "7", "--accelerator", "cpu")


def embed(model: Path, slides: Path, output: Path, *more: str) -> str:
    """Run the command; the line with which it ends."""
    try:
        cli.main(["embed", str(model), str(slides), str(output), *CUT, *more])
    except SystemExit as ended:
        return str(ended.code)
    return ""


def read(output: Path, name: str) -> tuple[np.ndarray, np.ndarray, dict[str, object], dict[str, object]]:
    with h5py.File(output / "h5_files" / f"{name}.h5") as file:
        features, coords = file["features"], file["coords"]
        return features[:], coords[:], dict(features.attrs), dict(coords.attrs)


def test_a_folder_gives_a_file_per_slide_and_a_table_that_names_what_is_missing(
    model: Path, slides: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    said = embed(model, slides, output)
    assert said.startswith("midnight: error: 3 of 5 have no features: glass: no tissue found")
    assert said.endswith(f"see {output / 'slides.tsv'}") and "\n" not in said
    assert capsys.readouterr().out.startswith(f"{output}: 2 slides with ")
    assert {path.name for path in (output / "h5_files").iterdir()} == {"fine.h5", "half.h5"}
    rows = {row.slide_id: row for row in read_table(output / "slides.tsv")}
    assert {name: row.status for name, row in rows.items()} == {
        "fine": "ok",
        "half": "ok",
        "glass": "failed",
        "page": "failed",
        "": "left out",
    }
    assert "HTML" in rows["page"].reason and "no tissue" in rows["glass"].reason and ".vsi" in rows[""].reason
    assert rows["fine"].mpp == 0.25 and rows["fine"].tiles == len(read(output, "fine")[0])


def test_the_files_have_the_form_of_trident(model: Path, slides: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    embed(model, slides, output)
    features, coords, of_features, of_coords = read(output, "fine")
    assert features.dtype == np.float32 and features.shape == (len(coords), 32)
    assert coords.dtype == np.int64 and coords.shape[1] == 2
    assert of_features == {"name": "fine", "savetodir": str(output / "h5_files"), "encoder": model.name}
    assert of_coords == {
        "name": "fine",
        "savetodir": str(output / "h5_files"),
        "patch_size": 56,
        "patch_size_level0": 112,
        "overlap": 0,
        "level0_magnification": 40,
        "target_magnification": 20,
        "mpp": 0.5,
        "level0_mpp": 0.25,
        "level0_width": 2400,
        "level0_height": 2000,
    }


@pytest.mark.parametrize("pooling", ["cls", "cls_mean"])
def test_features_are_those_of_the_tiles_at_their_coordinates(
    model: Path, slides: Path, tmp_path: Path, pooling: str
) -> None:
    output = tmp_path / "out"
    embed(model, slides / "half.svs", output, "--pooling", pooling, "--overlap", "16")
    features, coords, _, _ = read(output, "half")
    assert len(coords) > 100 and set(np.diff(np.unique(coords[:, 0]))) == {40}
    encoder = load_encoder(find_weights(str(model), 56), None, 56)
    with openslide.OpenSlide(slides / "half.svs") as slide:
        tiles = [np.asarray(slide.read_region(tuple(map(int, place)), 0, (56, 56)).convert("RGB")) for place in coords]
    images = (torch.from_numpy(np.stack(tiles)).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    expected = embed_images(encoder, images, "float32").numpy()
    np.testing.assert_allclose(features, expected if pooling == "cls_mean" else expected[:, :32], atol=1e-4)


def test_tiles_lie_on_tissue(model: Path, slides: Path, tmp_path: Path) -> None:
    embed(model, slides, tmp_path / "out", "--foreground", "1")
    _, coords, _, _ = read(tmp_path / "out", "fine")
    assert coords[:, 0].min() >= 380 and (coords[:, 0] + 112).max() <= 1620
    assert coords[:, 1].min() >= 220 and (coords[:, 1] + 112).max() <= 1760
    assert len(coords) > 0.8 * (1500 // 112) * (1200 // 112)


def test_finished_slides_are_skipped_and_replaced_ones_made_anew(model: Path, slides: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    embed(model, slides, output)
    before = {name: (output / "h5_files" / f"{name}.h5").stat().st_mtime_ns for name in ("fine", "half")}
    table = (output / "slides.tsv").read_text()
    write_slide(slides / "half.svs", tissue_image(1200, 1200, [(100, 200, 500, 700)]), 0.5)
    os.utime(slides / "half.svs", (1, 1))
    embed(model, slides, output)
    after = {name: (output / "h5_files" / f"{name}.h5").stat().st_mtime_ns for name in ("fine", "half")}
    assert after["fine"] == before["fine"] and after["half"] != before["half"]
    line = next(line for line in table.splitlines() if line.startswith("fine"))
    assert line in (output / "slides.tsv").read_text().splitlines()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("--mpp", "1"), "mpp 0.5, not 1.0"),
        (("--overlap", "8"), "overlap 0, not 8"),
        (("--pooling", "cls_mean"), "pooling cls, not cls_mean"),
        (("--segmenter", "otsu"), "tissue.segmenter hsv, not otsu"),
        (("--foreground", "0.9"), "foreground 0.4, not 0.9"),
    ],
)
def test_other_settings_are_refused_and_replace_by_force(
    model: Path, slides: Path, tmp_path: Path, change: tuple[str, str], named: str
) -> None:
    output = tmp_path / "out"
    assert embed(model, slides / "half.svs", output) == ""
    before = (output / "h5_files" / "half.h5").read_bytes()
    said = embed(model, slides / "half.svs", output, *change)
    assert f"half.h5: has other settings: {named}; name another folder" in said
    assert (output / "h5_files" / "half.h5").read_bytes() == before
    assert embed(model, slides / "half.svs", output, *change, "--force") == ""
    assert (output / "h5_files" / "half.h5").read_bytes() != before


def test_other_weights_are_other_settings(make_model, slides: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert embed(make_model(0), slides / "half.svs", output) == ""
    assert "has other settings: weights " in embed(make_model(4), slides / "half.svs", output)


def test_foreign_files_stay(model: Path, slides: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    path = output / "h5_files" / "half.h5"
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        file["features"] = np.zeros((2, 3))
    before = path.read_bytes()
    assert "no file of features that this command wrote" in embed(model, slides / "half.svs", output)
    assert path.read_bytes() == before
    (output / "slides.tsv").write_text("mine\n")
    assert "did not write it" in embed(model, slides, output)
    assert (output / "slides.tsv").read_text() == "mine\n"


def test_a_file_that_was_cut_short_is_none_of_ours(model: Path, slides: Path, tmp_path: Path) -> None:
    assert embed(model, slides / "half.svs", tmp_path / "out") == ""
    path = tmp_path / "out" / "h5_files" / "half.h5"
    assert read_mark(path) is not None
    path.write_bytes(path.read_bytes()[:3000])
    assert read_mark(path) is None


def test_a_damaged_place_is_left_out_and_counted(model: Path, slides: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    embed(model, slides / "fine.svs", whole)
    damage(slides / "fine.svs", (33, 34))
    assert embed(model, slides / "fine.svs", tmp_path / "out") == ""
    row, *_ = read_table(tmp_path / "out" / "slides.tsv")
    features, coords, _, _ = read(tmp_path / "out", "fine")
    assert row.damaged > 0 and row.tiles == len(features) == len(coords)
    before = {tuple(place): feature for place, feature in zip(*reversed(read(whole, "fine")[:2]), strict=True)}
    assert len(before) == row.tiles + row.damaged
    for place, feature in zip(coords, features, strict=True):
        np.testing.assert_allclose(feature, before[tuple(place)], atol=1e-4)


def test_a_slide_that_is_mostly_damaged_has_failed(model: Path, slides: Path, tmp_path: Path) -> None:
    damage(slides / "fine.svs", range(20, 80))
    said = embed(model, slides, tmp_path / "out")
    assert "fine: damaged: " in (tmp_path / "out" / "slides.tsv").read_text().replace("\t", ": ") or "fine" in said
    rows = {row.slide_id: row for row in read_table(tmp_path / "out" / "slides.tsv")}
    assert rows["fine"].status == "failed" and "tiles can't be read" in rows["fine"].reason
    assert rows["half"].status == "ok"


def test_ctrl_c_leaves_finished_files_and_a_table_and_the_next_run_does_the_rest(
    model: Path, slides: Path, tmp_path: Path
) -> None:
    """The slide after the first two hangs, as one on a dead mount does."""
    output = tmp_path / "out"
    os.mkfifo(slides / "hangs.svs")
    command = [sys.executable, "-m", "midnight.cli", "embed", str(model), str(slides), str(output), *CUT]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert comes_true(lambda: (output / "h5_files" / "half.h5").exists(), process)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "midnight: stopped by Ctrl-C; what is complete is kept: run again to go on"
    assert "Traceback" not in said
    rows = {row.slide_id: row.status for row in read_table(output / "slides.tsv")}
    assert rows == {
        "fine": "ok",
        "half": "ok",
        "hangs": "not yet",
        "glass": "failed",
        "page": "not yet",
        "": "left out",
    }
    (slides / "hangs.svs").unlink()
    assert "3 of 5 have no features" in embed(model, slides, output)


def test_a_csv_gives_a_resolution(model: Path, slides: Path, tmp_path: Path) -> None:
    write_slide(slides / "blind.svs", tissue_image(900, 900, [(60, 60, 780, 780)]), None)
    (tmp_path / "list.csv").write_text("path,mpp\nslides/blind.svs,0.25\n")
    assert "no resolution" in embed(model, slides / "blind.svs", tmp_path / "first")
    assert embed(model, tmp_path / "list.csv", tmp_path / "out") == ""
    assert read(tmp_path / "out", "blind")[3]["level0_mpp"] == 0.25


def test_workers_and_batches_change_nothing(model: Path, slides: Path, tmp_path: Path) -> None:
    embed(model, slides / "fine.svs", tmp_path / "one")
    embed(model, slides / "fine.svs", tmp_path / "two", "--workers", "1", "--batch-size", "64")
    one, two = read(tmp_path / "one", "fine"), read(tmp_path / "two", "fine")
    np.testing.assert_array_equal(one[1], two[1])
    np.testing.assert_allclose(one[0], two[0], atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--overlap", "56"), "overlap: 56 px of tiles of 56 px"),
        (("--size", "57"), "doesn't take inputs of 57 px"),
        (("--foreground", "1.5"), "midnight embed: foreground: 1.5"),
        (("--batch-size", "0"), "midnight embed: batch_size: 0"),
    ],
)
def test_wrong_settings_are_one_line(
    model: Path, slides: Path, tmp_path: Path, arguments: tuple[str, str], said: str
) -> None:
    line = embed(model, slides, tmp_path / "out", *arguments)
    assert said in line and "\n" not in line
    assert not (tmp_path / "out").exists()


def test_weights_that_are_none_are_one_line(slides: Path, tmp_path: Path) -> None:
    assert "neither weights nor an entry" in embed(tmp_path / "nothing", slides, tmp_path / "out")
    assert "give its folder, such as results/models/demo" in embed(Path("demo"), slides, tmp_path / "out")


def test_a_model_without_weights_is_one_too(slides: Path, tmp_path: Path) -> None:
    assert embed(Path("colour-statistics"), slides / "half.svs", tmp_path / "out") == ""
    features, _, of_features, _ = read(tmp_path / "out", "half")
    assert of_features["encoder"] == "colour-statistics" and np.isfinite(features).all()


def test_the_card_of_a_file_says_what_it_was_made_of(model: Path, slides: Path, tmp_path: Path) -> None:
    embed(model, slides / "half.svs", tmp_path / "out")
    with h5py.File(tmp_path / "out" / "h5_files" / "half.h5") as file:
        card = json.loads(file.attrs["midnight"])
    assert card["settings"]["precision"] == "float32" and card["settings"]["mpp"] == 0.5
    assert card["tiles"] == len(read(tmp_path / "out", "half")[0]) and card["versions"]["torch"]
