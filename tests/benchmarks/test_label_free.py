"""The tables of benchmarks/label_free.py, on points whose answers are known."""

from pathlib import Path

import pytest

from midnight.config import load_recipe, merge
from tests.benchmarks.scripts import load_script
from tests.tissue.small_slides import make_index, tissue_image, write_slide


def test_measures_are_ranked_within_runs_and_over_all(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = load_script("label_free", monkeypatch)
    points = []
    for run, start in (("a", 0.0), ("b", 10.0)):
        for step in range(1, 6):
            # the first rises with the scores within a run, and is far lower in the run that has the higher ones
            measured = dict.fromkeys(bench.MEASURES, float(-step)) | {"separation": step - 2 * start}
            points.append(bench.Point(run, step, measured, {"x": start + step, "y": start + step + 0.5}))
    rows = {row["measure"]: row for row in bench.result_rows(points)}
    assert rows["separation"]["within runs, median"] == rows["separation"]["lowest"] == "+1.00"
    assert float(rows["separation"]["over all"]) < 0
    assert rows["loss"]["within runs, median"] == "-1.00" and rows["loss"]["x"] == rows["loss"]["y"]
    first, _ = bench.run_rows(points)
    assert (first["run"], first["balanced accuracy"], first["loss"]) == ("a", "1.250 → 5.250", "-1 → -5")


def test_slides_that_are_elsewhere_are_told_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = load_script("label_free", monkeypatch)
    slide = write_slide(tmp_path / "a.svs", tissue_image(200, 200, [(20, 20, 160, 160)]), 0.5)
    index = make_index(tmp_path, [slide])
    (tmp_path / "a.svs").unlink()
    with pytest.raises(SystemExit):
        bench.main(["--slides", str(index), "--tiles", "demo-bach"])
    assert "a.svs: not found; run this in the folder where the workflow ran" in capsys.readouterr().err


def test_every_recipe_can_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = load_script("label_free", monkeypatch)
    recipes = [
        load_recipe("demo", merge(merge(bench.COMMON, bench.QUICK), change)) for change in bench.RECIPES.values()
    ]
    assert all(recipe.training.keep_every == recipe.training.probe_every == 2 for recipe in recipes)
    assert all(one != other for number, one in enumerate(recipes) for other in recipes[:number])
