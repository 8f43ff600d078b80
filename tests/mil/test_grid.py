import numpy as np
import pytest

from midnight.config import Features
from midnight.mil.grid import RUN, grid_of
from midnight.tiles.draw.foreground import mask_view
from midnight.tissue.resolution import SlideError
from tests.tissue.small_slides import make_record

FULL = np.ones((100, 150), bool)


def features(**change: object) -> Features:
    return Features(**({"mpp": 0.5, "size": 64, "foreground": 0.5} | change))  # type: ignore[arg-type]


@pytest.mark.parametrize("mpp", [0.25, 0.2525, 0.2490, 0.4, 0.5])
@pytest.mark.parametrize("overlap", [0, 16])
def test_the_grid_is_regular_at_the_exact_resolution(mpp: float, overlap: int) -> None:
    record = make_record(FULL, mpp=mpp, downsamples=(1.0,))
    grid = grid_of(record, features(overlap=overlap))
    step = (64 - overlap) * 0.5 / mpp
    for axis, side in ((0, record.width), (1, record.height)):
        places = np.unique(grid.coords[:, axis])
        expected = np.arange(len(places)) * step
        assert np.abs(places - expected).max() <= 1.5
        assert places[-1] + grid.side <= side + 1 and places[-1] + step + grid.side > side
    assert len(grid) == len(np.unique(grid.coords, axis=0))


def test_tiles_have_the_share_of_tissue_that_is_asked_for() -> None:
    mask = np.zeros((100, 150), bool)
    mask[20:70, 30:100] = True
    record = make_record(mask, mpp=0.5, downsamples=(1.0,))
    view = mask_view(record)
    kept = {tuple(place) for place in grid_of(record, features()).coords}
    every = {tuple(place) for place in grid_of(record, features(foreground=0.0)).coords}
    assert len(every) == (1600 // 64) * (2400 // 64)
    assert kept == {place for place in every if view.share(*place, 64) >= 0.5}
    assert 0 < len(kept) < len(every)


def test_runs_are_neighbours_of_a_row_and_cover_all_tiles() -> None:
    mask = FULL.copy()
    mask[:, 40:60] = False
    grid = grid_of(make_record(mask, mpp=0.3, downsamples=(1.0,)), features())
    runs = list(grid.runs())
    assert [number for run in runs for number in range(run.start, run.stop)] == list(range(len(grid)))
    assert max(run.stop - run.start for run in runs) == RUN
    for run in runs:
        assert len(set(grid.rows[run])) == 1
        assert (np.diff(grid.columns[run]) <= grid.window.pixels).all()


@pytest.mark.parametrize(
    ("mpp", "change", "reason"),
    [
        (1.0, {}, "coarser than the tiles asked for: 1 µm/px, tiles have 0.5; take tiles of 1 or more"),
        (0.5, {"size": 4000}, "too small for one tile of 4000 px at 0.5 µm/px"),
        (0.5, {"foreground": 0.9, "size": 1000}, "none of its tiles has 90% of tissue"),
    ],
)
def test_a_slide_without_tiles_says_why(mpp: float, change: dict[str, object], reason: str) -> None:
    mask = FULL.copy()
    mask[::2] = False
    with pytest.raises(SlideError, match=reason):
        grid_of(make_record(mask, mpp=mpp, downsamples=(1.0,)), features(**change))
