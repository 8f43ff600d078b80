import pytest

from midnight.report.comparison import compare_to_random, is_random
from tests.report.test_tables import score

SOURCES = {"demo-random": "init", "demo": "run", "uni": "eva"}


def test_trained_models_meet_their_random_init_cell_by_cell() -> None:
    scores = [score("demo-random", mean=0.5, error=0.03), score("demo", mean=0.6, error=0.04), score("uni", mean=0.9)]
    scores += [score("demo", "crc", 0.7), score("demo", pooling="cls", mean=0.4)]
    found = compare_to_random(scores, SOURCES)
    assert [(item.model, item.task) for item in found] == [("demo", "BACH")]
    assert found[0].in_errors == pytest.approx(2.0)
    assert found[0].verdict == "no clear difference"


def test_weights_meet_the_random_init_of_the_same_architecture() -> None:
    sources = {"mine": "weights", "start": "random", "uni": "eva"}
    found = compare_to_random([score("start", mean=0.5), score("mine", mean=0.6), score("uni", mean=0.9)], sources)
    assert [(item.model, item.random) for item in found] == [("mine", 0.5)]


@pytest.mark.parametrize(
    ("mean", "error", "verdict"),
    [
        (0.9, 0.01, "better"),
        (0.1, 0.01, "worse"),
        (0.505, 0.01, "no clear difference"),
        (0.9, None, "no standard error"),
    ],
)
def test_verdicts(mean: float, error: float | None, verdict: str) -> None:
    scores = [score("demo-random", mean=0.5), score("demo", mean=mean, error=error)]
    assert compare_to_random(scores, SOURCES)[0].verdict == verdict


def test_demo_and_real_scores_are_never_compared() -> None:
    scores = [score("demo-random", data="demo"), score("demo", data="real")]
    assert compare_to_random(scores, SOURCES) == []


def test_the_baseline_of_the_same_family_and_size_is_taken() -> None:
    sources = {"a-random": "init", "b-random": "init", "b-hires": "run"}
    scores = [score("a-random", mean=0.1), score("b-random", mean=0.2), score("b-hires", mean=0.9)]
    assert compare_to_random(scores, sources)[0].random == 0.2
    sizes = [score("b-random", mean=0.2), score("b-random", mean=0.3, size=392), score("b-hires", mean=0.9, size=392)]
    assert compare_to_random(sizes, sources)[0].random == 0.3


@pytest.mark.parametrize(
    ("model", "label", "expected"),
    [("demo-random", "x", True), ("x", "vitg14 (initial)", True), ("demo", "Demo", False), ("randomized", "x", False)],
)
def test_without_a_registry_the_name_tells(model: str, label: str, expected: bool) -> None:
    assert is_random(model, label, {}) is expected
    assert is_random(model, label, {model: "run"}) is False
