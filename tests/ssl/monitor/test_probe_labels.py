from pathlib import Path

import pytest

from midnight.config import Tiles
from midnight.errors import MidnightError
from midnight.ssl.monitor import probe_labels
from midnight.ssl.monitor.probe_labels import LabelPlan, plan_labels
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
    assert [plan.place(source) for source in range(4)] == [(0, False), (0, True), (1, False), (1, True)]


@pytest.mark.parametrize("projects", [None, {"a": ("X", "p1"), "b": ("X", "p2"), "c": ("Y", "p3"), "d": ("Y", "p3")}])
def test_a_cohort_of_one_kind_has_no_labels(
    index: Path, tmp_path: Path, projects: dict[str, tuple[str, str]] | None
) -> None:
    manifests = {"c": write_projects(tmp_path / "m.tsv", projects)} if projects else {}
    plan = plan_labels({"c": index}, manifests, TILES, 0)
    assert (plan.kind, plan.labels) == ("none", ())
    assert ids(plan) == [{name} for name in NAMES]
    assert [plan.place(source) for source in range(3)] == [(0, False)] * 3


def test_of_many_slides_some_are_drawn_from(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_labels, "MOST_SLIDES", 3)
    plans = [frozenset().union(*ids(plan_labels({"c": index}, {}, TILES, seed))) for seed in range(8)]
    assert {len(plan) for plan in plans} == {3}
    assert len(set(plans)) > 1


def test_slides_that_give_no_such_tiles_do_not_count(index: Path) -> None:
    with pytest.raises(MidnightError, match="none of the slides can give tiles"):
        plan_labels({"c": index}, {}, Tiles(size=4096, mpps=(0.5,)), 0)


def test_one_slide_is_enough_without_labels(tmp_path: Path) -> None:
    assert ids(plan_labels({"c": write_cohort(tmp_path, {"a": False})}, {}, TILES, 0)) == [{"a"}]
