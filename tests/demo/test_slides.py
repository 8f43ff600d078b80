import json
import re
from pathlib import Path

import numpy as np
import openslide
import pytest
from PIL import Image

from midnight.demo.classes import PALETTE, TissueClass
from midnight.demo.slides import damage, write_slides
from midnight.errors import MidnightError
from midnight.hashing import hash_file

from .conftest import SEED, SIZE


def catalogue(cohort: Path) -> list[dict]:
    return json.loads((cohort / "catalogue.json").read_text())


def test_catalogue_describes_the_files(cohort: Path) -> None:
    rows = catalogue(cohort)
    assert len(rows) == 4 and len({row["file_id"] for row in rows}) == 4
    for row in rows:
        path = cohort / row["file_name"]
        assert path.stat().st_size == row["file_size"]
        assert re.fullmatch(r"DEMO-A\d-\d{4}-01Z-00-DX\d\.[0-9A-F-]{36}\.svs", row["file_name"])
        assert row["file_name"].startswith(row["case_id"]) and row["project_id"].startswith("DEMO-")
        assert row["experimental_strategy"] == "Diagnostic Slide"
    assert len({row["case_id"] for row in rows}) == 3


def test_last_two_are_damaged_and_no_others(cohort: Path) -> None:
    rows = catalogue(cohort)
    assert [row["stored"] is not None for row in rows] == [False, False, True, False]
    assert 0.5 < rows[2]["stored"] / rows[2]["file_size"] < 0.7
    right = [hash_file(cohort / row["file_name"], "md5") == row["md5sum"] for row in rows]
    assert right == [True, True, True, False]
    assert re.fullmatch(r"[0-9a-f]{32}", rows[3]["md5sum"])


def test_damage_of_a_single_slide() -> None:
    (row,) = damage([{"md5sum": "0" * 32, "file_size": 10, "stored": None}])
    assert row["md5sum"] != "0" * 32 and row["stored"] is None


def test_resolutions(cohort: Path) -> None:
    mpps = []
    for row in catalogue(cohort):
        with openslide.OpenSlide(cohort / row["file_name"]) as slide:
            assert slide.dimensions == (SIZE, SIZE)
            mpps.append(float(slide.properties["openslide.mpp-x"]))
    assert mpps == [0.25, 0.5, 0.25, 0.25]


@pytest.mark.parametrize("index", [0, 1, 3])
def test_maps_agree_with_pixels(cohort: Path, index: int) -> None:
    row = catalogue(cohort)[index]
    stem = row["file_name"].removesuffix(".svs")
    picture = Image.open(cohort / f"{stem}.classes.png")
    classes, mask = np.asarray(picture), np.asarray(Image.open(cohort / f"{stem}.tissue.png"))
    assert np.array_equal(mask == 255, classes != TissueClass.BACKGROUND) and set(np.unique(mask)) == {0, 255}
    assert picture.getpalette()[: 3 * len(TissueClass)] == [level for value in TissueClass for level in PALETTE[value]]
    with openslide.OpenSlide(cohort / row["file_name"]) as slide:
        step = round(8 / float(slide.properties["openslide.mpp-x"]))
        assert classes.shape == (SIZE // step, SIZE // step)
        whole = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("L")).astype(float)
    grey = whole[: len(classes) * step, : len(classes) * step].reshape(len(classes), step, len(classes), step)
    grey = grey.mean((1, 3))
    brightness = {value: grey[classes == value].mean() for value in TissueClass if (classes == value).sum() > 20}
    empty = {TissueClass.BACKGROUND, TissueClass.FAT} & set(brightness)
    full = set(brightness) - empty
    assert min(brightness[value] for value in empty) > 25 + max(brightness[value] for value in full)
    bright = grey > (max(brightness[value] for value in full) + brightness[TissueClass.BACKGROUND]) / 2
    sure = classes != TissueClass.FAT
    assert (bright == (classes == TissueClass.BACKGROUND))[sure].mean() > 0.9


def test_same_seed_same_bytes_other_seed_other_slides(cohort: Path, tmp_path: Path) -> None:
    write_slides(tmp_path / "again", 4, SIZE, SEED)
    names = sorted(path.name for path in cohort.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "again").iterdir()) and len(names) == 13
    for name in names:
        assert (cohort / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name
    write_slides(tmp_path / "other", 1, 1024, SEED + 1)
    assert not set(names) & {path.name for path in (tmp_path / "other").glob("*.svs")}


@pytest.mark.parametrize(("n", "size"), [(0, 2048), (3, 100)])
def test_nothing_to_write(tmp_path: Path, n: int, size: int) -> None:
    with pytest.raises(MidnightError, match="demo"):
        write_slides(tmp_path, n, size, 0)
