import json
from pathlib import Path

import pytest
import yaml

from midnight.config import load_recipe
from midnight.screen.training import Progress, Watch, progress_of
from midnight.ssl.checkpoint.identity import resolved_config


def line(step: int, seconds: float, images_per_s: float | None = 20.0) -> str:
    return json.dumps({"step": step, "seconds": seconds, "images_per_s": images_per_s, "loss": 1.0})


def write(folder: Path, lines: list[str], steps: int = 100) -> None:
    recipe = load_recipe("demo", {"training": {"iterations": steps}})
    config = resolved_config(recipe, {}, None, "demo")  # as the trainer writes it
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")


def test_speed_is_that_of_the_last_lines() -> None:
    slow_start = [line(10 * i, 100.0 * i) for i in range(1, 10)]
    lines = slow_start + [line(90 + i, 900 + 2.0 * i) for i in range(1, 31)]
    assert progress_of(lines, 200) == Progress(120, 200, 20.0, pytest.approx(160.0))


def test_a_single_line_counts_from_the_start() -> None:
    assert progress_of([line(1, 4.0)], 11) == Progress(1, 11, 20.0, pytest.approx(40.0))


@pytest.mark.parametrize("half", ['{"step": 3', "", "null", "[1]", '{"step": 9}', '{"step": "x", "seconds": 1}'])
def test_a_half_written_line_and_the_probe_before_the_first_step_are_passed_over(half: str) -> None:
    probe = json.dumps({"step": 0, "knn": 0.3})
    assert progress_of([half, probe], 10) is None
    found = progress_of([probe, line(1, 1.0), line(2, 2.0), half], 10)
    assert found == Progress(2, 10, 20.0, pytest.approx(8.0))


def test_a_speed_that_is_not_known_is_left_out_of_the_words() -> None:
    assert str(Progress(3, 1_000_000, None, None)) == "step 3 of 1,000,000"
    assert str(Progress(34, 60, 21.44, 70)) == "step 34 of 60, 21.4 images/s, 1 min 10 s left"


def test_an_earlier_training_is_not_taken_for_this_one(tmp_path: Path) -> None:
    write(tmp_path, [line(100, 100.0)])
    watch = Watch(tmp_path)
    assert watch.progress() is None
    replacement = tmp_path / "new"
    replacement.write_text(line(50, 50.0) + "\n")  # a resumed run writes the lines up to its checkpoint again
    replacement.replace(tmp_path / "metrics.jsonl")
    assert watch.progress() == Progress(50, 100, 20.0, pytest.approx(50.0))
    assert watch.progress() is not None, "the same file a second time is still this training's"


def test_files_that_are_not_there_yet_are_no_progress(tmp_path: Path) -> None:
    watch = Watch(tmp_path / "later")
    assert watch.progress() is None
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "metrics.jsonl").write_text(line(1, 1.0) + "\n")
    assert watch.progress() is None, "no config.yaml"


def test_of_a_long_file_only_the_end_is_read(tmp_path: Path) -> None:
    watch = Watch(tmp_path)
    write(tmp_path, [line(step, step / 2) for step in range(1, 20_001)], steps=30_000)
    assert watch.progress() == Progress(20_000, 30_000, 20.0, pytest.approx(5000.0))
