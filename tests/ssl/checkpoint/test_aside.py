from pathlib import Path

from midnight.ssl.checkpoint.aside import bring_back, kept_step, last_step, set_aside


def progress(folder: Path, *steps: int) -> Path:
    for step in steps:
        (folder / f"step_{step:08d}").mkdir(parents=True)
    return folder


def test_progress_goes_aside_with_its_curves_and_comes_back(tmp_path: Path) -> None:
    folder = progress(tmp_path / "checkpoints", 3, 11)
    (tmp_path / "metrics.jsonl").write_text("old curves")
    assert set_aside(folder, "k1") == tmp_path / "checkpoints.k1"
    assert not folder.exists() and kept_step(folder, "k1") == 11 and kept_step(folder, "k2") == 0
    (tmp_path / "metrics.jsonl").write_text("new curves")
    assert not bring_back(folder, "k2")
    assert bring_back(folder, "k1")
    assert last_step(folder) == 11
    assert (tmp_path / "metrics.jsonl").read_text() == "old curves"
    assert not (tmp_path / "checkpoints.k1").exists()


def test_nothing_that_is_aside_is_ever_deleted_and_the_longest_comes_back(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    for steps in ((2,), (9, 10), (5,)):
        set_aside(progress(folder, *steps), "k1")
    assert sorted(map(last_step, tmp_path.glob("checkpoints.k1*"))) == [2, 5, 10]
    assert bring_back(folder, "k1") and last_step(folder) == 10
    assert sorted(map(last_step, tmp_path.glob("checkpoints.k1*"))) == [2, 5]


def test_folders_of_earlier_versions_are_found(tmp_path: Path) -> None:
    progress(tmp_path / "checkpoints.stale-k1", 4)
    assert bring_back(tmp_path / "checkpoints", "k1")


def test_a_key_that_is_no_name_makes_no_path(tmp_path: Path) -> None:
    assert set_aside(progress(tmp_path / "checkpoints", 1), "../../evil") == tmp_path / "checkpoints.unknown"
