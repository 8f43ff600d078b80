from pathlib import Path

import yaml

from midnight.report.ablations import build_ablations, read_recipe
from midnight.report.tables import build_tables
from tests.report.test_tables import score


def run(folder: Path, **recipe: object) -> Path:
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(recipe))
    return folder


def test_ablation_rows_come_from_the_runs_own_recipes(tmp_path: Path) -> None:
    full = run(tmp_path / "full", tiles={"hsv_filter": {}, "hed_sigma": 0.05}, loss={"regularizer": "kde"})
    bare = run(tmp_path / "bare", tiles={"hsv_filter": None, "hed_sigma": 0}, loss={"regularizer": "koleo"})
    names = ("bare", "full", "other")
    recipes = {"bare": "ablation-1", "full": "ablation-4", "other": "midnight-12k"}
    config = {"runs": {name: {"recipe": recipes[name], "cohorts": {"tcga": 1}} for name in names}}
    tables = build_tables([score("full", mean=0.7), score("bare"), score("bare", "hest", 0.3), score("other")])
    rows = build_ablations(tables, {"bare": bare, "full": full}, config, {})
    shown = [(row.label, row.hsv, row.regularizer, row.hed) for row in rows]
    assert shown == [("bare", False, "KoLeo", False), ("full", True, "KDE", True)]
    assert rows[0].cohorts == ("tcga",)
    assert rows[0].eva is not None and rows[0].eva.label == "mean of 1 of 12"
    assert rows[0].hest.value == 0.3


def test_no_ablations_without_such_runs(tmp_path: Path) -> None:
    assert build_ablations(build_tables([score()]), {}, {}, {}) == []
    assert read_recipe(tmp_path) == {}
