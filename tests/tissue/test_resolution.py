import pytest
from hypothesis import given
from hypothesis import strategies as st

from midnight.tissue.resolution import SlideError, find_resolution, nearest_finer, usable_mpps


def properties(x: object = None, y: object = None, power: object = None) -> dict[str, str]:
    named = {"openslide.mpp-x": x, "openslide.mpp-y": y, "openslide.objective-power": power}
    return {name: str(value) for name, value in named.items() if value is not None}


def test_the_slide_comes_before_its_objective() -> None:
    found = find_resolution(properties(0.25, 0.2502, 20))
    assert found.mpp == pytest.approx(0.2501)
    assert (found.source, found.stated) == ("slide", "")
    assert find_resolution(properties("0", "0", 20)).mpp == 0.5
    assert find_resolution(properties(power=20)).source == "objective power"


@pytest.mark.parametrize(
    ("stated", "declared", "says"),
    [
        (properties(0.5, 0.5, 20), 0.25, "0.5 µm/px"),
        (properties(0.25, 0.27), 0.25, "0.25 × 0.27 µm/px"),
        (properties(2.5, 2.5), 0.25, "2.5 µm/px"),
        (properties(352.778, 352.778), 0.25, "352.778 µm/px"),
        (properties(power=20), 0.25, "an objective of 20x, about 0.5 µm/px"),
        (properties(0.2505, 0.2505), 0.25, ""),
        (properties(power=40), 0.23, ""),
        (properties("nan", "unknown", "0"), 0.46, ""),
        (properties(), 0.46, ""),
    ],
)
def test_what_a_person_says_comes_first_and_a_contradiction_is_told(
    stated: dict[str, str], declared: float, says: str
) -> None:
    found = find_resolution(stated, declared)
    assert (found.mpp, found.source, found.stated) == (declared, "manifest", says)


@pytest.mark.parametrize(
    ("stated", "declared", "reason"),
    [
        (properties(), None, "no resolution"),
        (properties(x=0.25), None, "no resolution"),
        (properties(0.25, 0.5), None, "not square"),
        (properties(250, 250), None, "absurd"),
        (properties(352.778, 352.778), None, "absurd"),
        (properties(), 0.001, "absurd"),
        (properties(power=1000), None, "absurd"),
    ],
)
def test_what_is_no_resolution_is_refused(stated: dict[str, str], declared: float | None, reason: str) -> None:
    with pytest.raises(SlideError, match=reason) as caught:
        find_resolution(stated, declared)
    assert ("mend it there" if declared else "give mpp in a CSV: path,mpp") in str(caught.value)


def test_usable_mpps_are_no_finer_than_the_slide_and_leave_room_for_a_tile() -> None:
    assert usable_mpps(2220, 2967, 0.499) == [0.5, 1.0, 2.0]
    assert usable_mpps(2220, 1000, 0.499) == [0.5, 1.0]
    assert usable_mpps(100_000, 80_000, 0.2525) == [0.25, 0.5, 1.0, 2.0]
    assert usable_mpps(100_000, 80_000, 0.26) == [0.5, 1.0, 2.0]
    assert usable_mpps(16, 16, 0.499) == []


@given(st.floats(0.05, 20), st.lists(st.floats(0.1, 64), max_size=6))
def test_the_nearest_finer_level_is_the_coarsest_fine_enough(target: float, rest: list[float]) -> None:
    levels = [0.1, *rest]
    chosen = nearest_finer(levels, target)
    if target * 1.01 < 0.1:
        assert chosen == 0
    else:
        assert levels[chosen] <= target * 1.0100001
        assert not [mpp for mpp in levels if levels[chosen] < mpp <= target]
