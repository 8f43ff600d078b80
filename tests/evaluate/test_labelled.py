import os
from pathlib import Path

import pytest

from midnight.evaluate.fingerprint import hash_data, hash_labelled
from midnight.evaluate.labelled import Labelled, look, read_labelled


def write(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def table(root: Path, *lines: str) -> Path:
    path = root / "labels.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    return path


def groups(found: Labelled) -> dict[str, str]:
    return {sample.name: sample.group for sample in found.samples}


def test_class_folders_alone_are_listed_by_class_and_name(tmp_path: Path) -> None:
    found = read_labelled(write(tmp_path, "B/2.png", "A/9.JPG", "B/10.tif", "A/.hidden.png"))
    assert [(s.name, s.label, s.split, s.group) for s in found.samples] == [
        ("A/9.JPG", "A", "all", ""),
        ("B/10.tif", "B", "all", ""),
        ("B/2.png", "B", "all", ""),
    ]
    assert (found.splits, found.grouped_by, found.left_out) == (["all"], "", ())


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (("train", "val", "test"), ["train", "val", "test"]),
        (("train", "test"), ["train", "test"]),
        (("Training", "Validation"), ["train", "val"]),
    ],
)
def test_split_folders_are_splits_and_not_classes(tmp_path: Path, folders: tuple[str, ...], splits: list[str]) -> None:
    names = [f"{folder}/{label}/{folder}{i}.png" for folder in folders for label in ("A", "B") for i in range(2)]
    found = read_labelled(write(tmp_path, *names))
    assert (found.classes, found.splits) == (["A", "B"], splits)
    found.check()
    assert {sample.split for sample in found.samples if sample.name.startswith(folders[0])} == {"train"}


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["train/A/1.png", "train/B/1.png"], "has the split train only"),
        (["val/A/1.png", "test/B/1.png"], "has the split test, val only"),
        (["train/A/1.png", "test/A/1.png", "more/A/1.png"], "has the split test, train and beside it 'more'"),
        (["train/A/1.png", "tests/A/1.png"], "has the split train and beside it 'tests'"),
    ],
)
def test_splits_that_are_not_clear_are_refused(tmp_path: Path, names: list[str], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        read_labelled(write(tmp_path, *names))


def test_control_and_test_may_be_classes(tmp_path: Path) -> None:
    assert read_labelled(write(tmp_path, "control/1.png", "test/1.png")).classes == ["control", "test"]


def test_a_class_that_one_split_lacks_is_named(tmp_path: Path) -> None:
    found = read_labelled(write(tmp_path, "train/A/1.png", "train/B/1.png", "test/A/2.png"))
    with pytest.raises(ValueError, match="split 'test' has no images of 'B'"):
        found.check()


def test_images_deeper_in_a_class_are_its_images(tmp_path: Path) -> None:
    found = read_labelled(write(tmp_path, "A/1.png", "A/more/deep/2.png", "B/x/3.png"))
    assert [(s.name, s.label) for s in found.samples] == [
        ("A/1.png", "A"),
        ("A/more/deep/2.png", "A"),
        ("B/x/3.png", "B"),
    ]


@pytest.mark.parametrize("top", ["", "train/"])
def test_what_is_left_out_is_said(tmp_path: Path, top: str) -> None:
    names = [f"{top}A/1.png", f"{top}B/1.png", f"{top}stray.png", f"{top}C/1.npy", f"{top}B/note.txt", "over.jpg"]
    (tmp_path / top / "D").mkdir(parents=True)
    found = read_labelled(write(tmp_path, *names, *(["test/A/1.png"] if top else [])))
    assert found.left_out == (
        f"2 images outside of the class folders: over.jpg, {top}stray.png",
        f"folders without an image: {top}C, {top}D",
        "files that are no images: 1 .npy, 1 .txt",
    )


def test_groups_are_told_by_the_first_rule_that_fits_all(tmp_path: Path) -> None:
    by_folder = write(tmp_path / "folders", *(f"{c}/p{i}/{j}.png" for c in "AB" for i in range(2) for j in range(2)))
    found = read_labelled(by_folder)
    assert found.grouped_by == "the sub-folders of the classes"
    assert groups(found)["B/p1/0.png"] == "p1"
    barcode = "tcga-0{}-AB1{}-01Z-00-DX1"
    by_patient = write(
        tmp_path / "tcga", *(f"{c}/{barcode.format(i, i)}/{j}.png" for c in "AB" for i, j in ["00", "01", "10"])
    )
    found = read_labelled(by_patient)
    assert found.grouped_by == "the patient in TCGA barcodes"
    assert set(groups(found).values()) == {"TCGA-00-AB10", "TCGA-01-AB11"}
    names = ["s_1_1024_2048", "s_1_0_0", "s_2 [x=12,y=4,w=9,h=9]", "s_2 [d=2,x=1,y=4,w=9,h=9]", "s-3-x12-y4"]
    found = read_labelled(write(tmp_path / "names", *(f"{c}/{name}.png" for c in "AB" for name in names)))
    assert found.grouped_by == "the start of names with coordinates"
    assert sorted(set(groups(found).values())) == ["s-3", "s_1", "s_2"]


@pytest.mark.parametrize(
    "names",
    [
        ["A/images/1.png", "A/images/2.png", "B/images/1.png"],  # one folder is no group
        ["A/p1/1.png", "A/p2/1.png", "A/3.png", "B/p1/1.png", "B/p2/2.png"],  # not all in one
        ["A/1_1_1.png", "A/2_1_1.png", "B/3_1_1.png", "B/4_1_1.png"],  # no two of one start
        ["A/tumour_1_1.png", "A/tumour_1_2.png", "B/fat_1_1.png", "B/fat_1_2.png"],  # the start is the class
        ["A/NORM-TCGA-RPHNTLLN_107.jpg", "A/NORM-TCGA-PCHPQPCC_101.jpg", "B/X-TCGA-QLQQDRSF_103.jpg"],
    ],
)
def test_names_that_tell_no_group_are_not_guessed_from(tmp_path: Path, names: list[str]) -> None:
    found = read_labelled(write(tmp_path, *names))
    assert found.grouped_by == ""
    assert set(groups(found).values()) == {""}


def test_a_table_names_images_anywhere_with_splits_and_groups(tmp_path: Path) -> None:
    far = write(tmp_path / "far", "z.png") / "z.png"
    write(tmp_path / "set", "x/1.png", "x/2.png", "3.png")
    lines = [
        "Path,Label,Split,Group,remark",
        "./x/1.png,fat,train,p1,",
        "x/2.png, gland,Train,p2,?",
        "3.png,fat,test,p3,",
    ]
    found = read_labelled(table(tmp_path / "set", *lines, f"{far},gland,test,p3,"))
    assert [(s.name, s.label, s.split, s.group) for s in found.samples] == [
        ("x/1.png", "fat", "train", "p1"),
        ("x/2.png", "gland", "train", "p2"),
        ("3.png", "fat", "test", "p3"),
        (str(far), "gland", "test", "p3"),
    ]
    assert found.samples[0].path == tmp_path / "set" / "x" / "1.png"
    assert found.grouped_by == "the column 'group'"


def test_a_table_may_have_neither_splits_nor_groups(tmp_path: Path) -> None:
    write(tmp_path, "1.png", "2.png")
    found = read_labelled(table(tmp_path, "path,label,split", "1.png,a,", "2.png,b,"))
    assert (found.classes, found.splits, found.grouped_by) == (["a", "b"], ["all"], "")


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (["file,label", "1.png,a"], "has no column 'path'"),
        (["path,label", "1.png,a", "2.png,"], "line 3: no label"),
        (["path,label,group", "1.png,a,p", "2.png,a,"], "line 3: no group"),
        (["path,label,split", "1.png,a,train", "2.png,a,"], "line 3: no split"),
        (["path,label,split", "1.png,a,train", "2.png,a,holdout"], "line 3: split 'holdout' is none of train"),
        (["path,label,split", "1.png,a,train", "2.png,b,train"], "has the split train only"),
        (["path,label", "1.png,a", "./1.png,b"], "line 3: 1.png is in line 2 already"),
        (["path,label", "1.png,a", "absent.png,b"], r"1 of 2 images are not there, the first: absent.png \(line 3\)"),
        (["path,label", "slide.svs,a"], "line 2: slide.svs is no image that can be read"),
        (["path,label", "1.png"], "line 2: no label"),
    ],
)
def test_a_wrong_table_is_told_by_its_line(tmp_path: Path, lines: list[str], problem: str) -> None:
    write(tmp_path, "1.png", "2.png")
    with pytest.raises(ValueError, match=problem):
        read_labelled(table(tmp_path, *lines))


def test_the_hash_of_a_plain_folder_is_that_of_its_files(tmp_path: Path) -> None:
    root = write(tmp_path, "A/1.png", "B/2.png", "over.png")
    assert hash_labelled(root) == hash_data(root)
    write(root, "B/deeper/3.png")
    assert hash_labelled(root) != hash_data(root)


def test_the_hash_of_a_table_changes_with_labels_and_images(tmp_path: Path) -> None:
    write(tmp_path, "1.png", "2.png")
    path = table(tmp_path, "path,label", "1.png,a", "2.png,b")
    first = hash_labelled(path)
    write(tmp_path, "unlisted.png")
    assert hash_labelled(path) == first
    (tmp_path / "2.png").write_bytes(b"other")
    second = hash_labelled(path)
    table(tmp_path, "path,label", "1.png,b", "2.png,a")
    assert len({first, second, hash_labelled(path)}) == 3


@pytest.mark.parametrize("kind", ["folder", "table"])
def test_a_look_tells_changes_without_reading_images(tmp_path: Path, kind: str) -> None:
    root = write(tmp_path / "set", "A/1.png", "B/2.png")
    if kind == "table":
        root = table(root, "path,label", "A/1.png,a", "B/2.png,b")
    looks = [look(root)]
    assert look(root) == looks[0]
    os.utime(tmp_path / "set" / "A" / "1.png", (1, 1))
    looks.append(look(root))
    (tmp_path / "set" / "B" / "2.png").write_bytes(b"longer than before")
    looks.append(look(root))
    assert len(set(looks)) == 3
    assert look(tmp_path / "absent") == ""
