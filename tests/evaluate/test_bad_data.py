"""Damaged, missing or doubled files of the stand-ins: one clear line, and nothing that looks complete."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from midnight.config import Evaluation
from midnight.errors import MidnightError
from midnight.evaluate import embed as embed_module
from midnight.evaluate import score as score_module
from midnight.home import project_file
from tests.evaluate.standins import FOLDERS, RELAXED, WRITERS, Data
from tests.evaluate.standins.entries import MODELS, shorten
from tests.evaluate.standins.pixels import Links

SIZE = 28
Damage = Callable[[Path], None]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return Data(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def model(make_model: Callable[[int], Path]) -> Path:
    return make_model(0)


# Damages. Files are hard links: a changed one is written anew.


def remove(name: str) -> Damage:
    def damage(root: Path) -> None:
        path = root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return damage


def cut(name: str, share: float = 0.6) -> Damage:
    def damage(root: Path) -> None:
        content = (root / name).read_bytes()
        (root / name).unlink()
        (root / name).write_bytes(content[: int(len(content) * share)])

    return damage


def replace(name: str, old: str, new: str) -> Damage:
    def damage(root: Path) -> None:
        text = (root / name).read_text()
        assert old in text
        (root / name).unlink()
        (root / name).write_text(text.replace(old, new))

    return damage


def rename(name: str, new: str) -> Damage:
    def damage(root: Path) -> None:
        (root / name).rename(root / new)

    return damage


PHOTOS = "ICIAR2018_BACH_Challenge/Photos"
H5 = "camelyonpatch_level_2_split"
PATIENT = "BreaKHis_v1/histology_slides/breast/benign/SOB/fibroadenoma/SOB_B_F_14-3909/40X"
PATCH = "train_validation_patches_750/ZT111_4_A_2_3/ZT111_4_A_2_3_patch_2_class_1.jpg"
NUCLEI = "MoNuSAC_images_and_annotations/TCGA-03-0000/TCGA-03-0000_2"

CASES: list[tuple[str, Damage, str]] = [
    ("bach", remove("."), r"no data at .*bach .*get it from https://zenodo.org"),
    ("bach", remove(f"{PHOTOS}/InSitu"), r"bach \(split train\): Found no valid file for the classes InSitu"),
    (
        "bach",
        remove(f"{PHOTOS}/Benign/b050.tif"),
        r"wrong data in .*bach \(split train\): fewer files than its splits are made of",
    ),
    ("bach", cut(f"{PHOTOS}/Invasive/iv005.tif"), r"Invasive/iv005\.tif: can't be read: .*get the file again"),
    ("bracs", remove("BRACS_RoI/latest_version/val"), r"bracs \(split val\): Found no valid file for the classes 0_N"),
    ("breakhis", remove(f"{PATIENT}/SOB_B_F-14-3909-40-003.png"), r"length \(338\) does not match .* \(339\)"),
    ("crc", remove("CRC-VAL-HE-7K/TUM"), r"crc \(split val\): Found no valid file for the classes TUM"),
    ("gleason", remove("test_patches_750"), r"`test_patches_750` directory not found in .*arvaniti"),
    ("gleason", cut(PATCH, 0.97), rf"{PATCH}: cut off, its end is missing; get the file again"),
    (
        "gleason",
        rename(PATCH, PATCH.replace("/ZT111_4_A_2_3_p", "/XX1_4_A_2_3_p")),
        r"Invalid microarray value found for file .*XX1",
    ),
    ("mhist", remove("annotations.csv"), r"No such file or directory: .*mhist/annotations\.csv"),
    (
        "mhist",
        replace("annotations.csv", "Partition", "Part"),
        r"mhist \(split train\): no 'Partition' in annotations\.csv",
    ),
    ("mhist", replace("annotations.csv", "MHIST_0900.png,HP", "MHIST_0900.png,HB"), r"no 'HB' in annotations\.csv"),
    ("mhist", replace("annotations.csv", "MHIST_0901.png", "MHIST_0900.png"), r"MHIST_0900\.png is there twice"),
    ("mhist", remove("images/MHIST_0100.png"), r"MHIST_0100\.png: can't be read: .*images/MHIST_0100\.png"),
    ("pcam", remove(f"{H5}_test_y.h5"), r"task pcam: .*_test_y\.h5', errno = 2, error message = 'No such file"),
    ("pcam", cut(f"{H5}_valid_y.h5"), r"_valid_y\.h5: .*truncated file"),
    ("pcam", cut(f"{H5}_train_x.h5"), r"wrong data in .*_split_train_x\.h5: .*truncated file"),
    ("camelyon16-small", remove("testing/reference.csv"), r"'reference\.csv' file not found"),
    (
        "camelyon16-small",
        replace("testing/reference.csv", "test_007,", "test_7,"),
        r"no 'test_007' in .*reference\.csv",
    ),
    ("camelyon16-small", remove("training/tumor/tumor_050.tif"), r"Expected 216 files, for split 'train' found 215"),
    (
        "camelyon16-small",
        cut("training/normal/normal_044.tif", 0.001),
        r"normal_044\.tif: Unsupported or missing image",
    ),
    (
        "camelyon16-small",
        rename("training/tumor/tumor_050.tif", "training/tumor/normal_044.tif"),
        r"there are two slides normal_044; give every slide its own name",
    ),
    (
        "panda-small",
        remove("train_with_noisy_labels.csv"),
        r"No such file or directory: .*train_with_noisy_labels\.csv",
    ),
    (
        "panda-small",
        replace("train_with_noisy_labels.csv", "isup_grade", "grade"),
        r"no 'isup_grade' in train_with_noisy_labels\.csv",
    ),
    ("panda-small", remove(f"train_images/00{7:030x}.tiff"), r"Expected 252 images, found 251 in .*train_images"),
    ("consep", remove("Train/Labels/train_5.mat"), r"train_5\.png: can't be read: .*Train/Labels/train_5\.mat"),
    ("consep", cut("Test/Images/test_3.png"), r"test_3\.png: .*truncated"),
    ("consep", remove("Test/Images/test_3.png"), r"Expected 14 images, found 13"),
    ("monusac", remove("MoNuSAC Testing Data and Annotations"), r"length \(0\) does not match .* \(85\)"),
    ("monusac", cut(f"{NUCLEI}.xml"), rf"{NUCLEI}\.tif: can't be read: .*{NUCLEI}\.xml: "),
]


@pytest.mark.parametrize(("name", "damage", "words"), CASES, ids=[f"{case[0]}-{i}" for i, case in enumerate(CASES)])
def test_wrong_data_are_one_clear_line(
    name: str,
    damage: Damage,
    words: str,
    data: Data,
    model: Path,
    use_registry: Callable[[str, str], None],
    tmp_path: Path,
) -> None:
    data.truth(name)
    folder = tmp_path / "data" / FOLDERS[name]
    shutil.copytree(data.root / FOLDERS[name], folder, copy_function=os.link)
    damage(folder)
    use_registry(shorten(name, name in RELAXED), MODELS)
    evaluation = Evaluation(protocol="paper", data_root=str(tmp_path / "data"), accelerator="cpu", workers=0)
    output = tmp_path / "output"
    with pytest.raises(MidnightError, match=words) as caught:
        if name in ("consep", "monusac"):
            places = {("cls", name): output / "scores" / f"{name}.json"}
            score_module.score_tasks("tiny", model, SIZE, [name], ["cls"], evaluation, {}, places, "demo", 0, output)
        else:
            embed_module.embed("tiny", model, SIZE, [name], evaluation, {name: output})
    assert "\n" not in str(caught.value)
    left = {path.name for path in output.rglob("*") if path.is_file()}
    assert left <= {"features.partial", "samples.partial"}


def test_every_eva_task_has_a_fault() -> None:
    pcam = {"pcam-10shot"}  # the same data set as pcam
    assert {name for name, *_ in CASES} == set(WRITERS) - pcam


def test_a_cut_off_jpeg_of_a_folder_of_ones_own_is_named(
    model: Path, use_registry: Callable[[str, str], None], tmp_path: Path
) -> None:
    links = Links(tmp_path / "data", ".jpg", classes=2, side=16)
    for index in range(8):
        links.write(f"class{index % 2}/{index // 2}.jpg", index % 2)
    cut("class1/1.jpg", 0.97)(tmp_path / "data")
    (tmp_path / "data" / "class0" / "._0.jpg").write_bytes(b"what some systems add is no image")
    entry = yaml.safe_load(project_file("config", "tasks.yaml").read_text())["tasks"]["folder"]
    use_registry(yaml.safe_dump({"tasks": {"folder": entry}}), MODELS)
    evaluation = Evaluation(protocol="paper", data_root=str(tmp_path / "data"), accelerator="cpu", workers=0)
    with pytest.raises(MidnightError, match=r"class1/1\.jpg: cut off, its end is missing"):
        embed_module.embed("tiny", model, SIZE, ["folder"], evaluation, {"folder": tmp_path / "output"})
    assert not list((tmp_path / "output").rglob("index.json"))
