from pathlib import Path

import pytest

from midnight.config import Tiles
from midnight.errors import MidnightError
from midnight.ssl import probe_labels
from midnight.ssl.probe_labels import LabelPlan, plan_labels, tissue_middle
from midnight.tiles.drawn import DrawnTile
from midnight.tissue.index import training_slides
from tests.ssl.probe_slides import write_cohort, write_projects

TILES = Tiles(size=32, mpps=(0.5,), hsv_filter=None)
NAMES = ("a", "b", "c", "d", "e")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("labels"), dict.fromkeys(NAMES, False))


def ids(plan: LabelPlan) -> list[set[str]]:
    return [{record.slide_id for record in source} for source in plan.sources]


def test_projects_are_labels_and_patients_stay_on_one_side(index: Path, tmp_path: Path) -> None:
    facts = {"a": ("X", "p1"), "b": ("X", "p1"), "c": ("X", "p2"), "d": ("Y", "p3"), "e": ("Y", "p4")}
    manifest = write_projects(tmp_path / "m.tsv", facts)
    splits = []
    for seed in range(10):
        plan = plan_labels({"c": index}, {"c": manifest}, TILES, seed)
        assert (plan.kind, plan.labels) == ("project", ("X", "Y"))
        x_train, x_test, y_train, y_test = ids(plan)
        assert {frozenset(x_train), frozenset(x_test)} == {frozenset("ab"), frozenset("c")}
        assert {frozenset(y_train), frozenset(y_test)} == {frozenset("d"), frozenset("e")}
        splits.append((frozenset(x_test), frozenset(y_test)))
    assert len(set(splits)) > 1
    again = plan_labels({"c": index}, {"c": manifest}, TILES, 9)
    assert ids(again) == ids(plan)


def test_without_projects_cohorts_are_labels(index: Path, tmp_path: Path) -> None:
    other = write_cohort(tmp_path, {"f": True, "g": True})
    plan = plan_labels({"one": index, "two": other}, {}, TILES, 0)
    assert (plan.kind, plan.labels) == ("project", ("one", "two"))
    assert [len(source) for source in ids(plan)] == [3, 2, 1, 1]
    assert [place(plan, cohort) for cohort in range(4)] == [(0, False), (0, True), (1, False), (1, True)]


def place(plan: LabelPlan, cohort: int) -> tuple[int, bool] | None:
    import numpy as np

    return plan.place(DrawnTile(np.zeros((32, 32, 3), np.uint8), 0, cohort, 0.5, 0, 0), [])


@pytest.mark.parametrize("projects", [None, {"a": ("X", "p1"), "b": ("X", "p2"), "c": ("Y", "p3"), "d": ("Y", "p3")}])
def test_a_cohort_of_one_kind_is_labelled_by_slides(
    index: Path, tmp_path: Path, projects: dict[str, tuple[str, str]] | None
) -> None:
    manifests = {"c": write_projects(tmp_path / "m.tsv", projects)} if projects else {}
    plan = plan_labels({"c": index}, manifests, TILES, 0)
    assert (plan.kind, plan.labels) == ("slide", NAMES)
    assert ids(plan) == [{name} for name in NAMES]


def test_of_many_slides_some_are_labels(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_labels, "MOST_SLIDES", 3)
    plans = [plan_labels({"c": index}, {}, TILES, seed).labels for seed in range(8)]
    assert {len(plan) for plan in plans} == {3}
    assert len(set(plans)) > 1


def test_slides_that_give_no_such_tiles_do_not_count(index: Path) -> None:
    with pytest.raises(MidnightError, match="0 of the slides can give tiles; labels need at least 2"):
        plan_labels({"c": index}, {}, Tiles(size=4096, mpps=(0.5,)), 0)


def test_a_slides_tiles_are_on_a_side_by_their_position(index: Path) -> None:
    import numpy as np

    records = training_slides(index)
    plan = plan_labels({"c": index}, {}, TILES, 0)
    middle = tissue_middle(records[1])
    assert middle == pytest.approx(240, abs=16)  # tissue from 40 to 440

    def at(x: float) -> tuple[int, bool] | None:
        return plan.place(DrawnTile(np.zeros((32, 32, 3), np.uint8), 1, 1, 0.5, round(x), 0), records)

    assert (at(middle - 33), at(middle - 16), at(middle + 1)) == ((1, False), None, (1, True))
    assert place_coarse(plan, records, middle) is None


def place_coarse(plan: LabelPlan, records: list, middle: float) -> tuple[int, bool] | None:
    """A tile at 1 µm/px covers 64 px of a slide at 0.5."""
    import numpy as np

    return plan.place(DrawnTile(np.zeros((32, 32, 3), np.uint8), 1, 1, 1.0, round(middle - 33), 0), records)
