"""Slides that were replaced between masks and training."""

import os
from pathlib import Path

import pytest

from midnight.config import Tiles
from midnight.errors import MidnightError
from midnight.tiles.draw.lost_slides import read_quarantine
from midnight.tiles.draw.source import OnlineSource
from midnight.tiles.read.reader import SlideReader, plan
from midnight.tissue.index import read_index
from midnight.tissue.resolution import SlideError
from tests.tissue.small_slides import make_index, tissue_image, write_slide


@pytest.mark.parametrize("compression", ["jpeg", "deflate"])
def test_a_slide_that_was_replaced_after_its_mask_was_made_is_left_out(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "s.svs"
    left, right = (tissue_image(900, 900, [(60, place, 780, 300)]) for place in (60, 540))
    write_slide(path, left, 0.5, compression=compression)
    index = make_index(tmp_path, [path])
    record = read_index(index)[0]
    window = plan(record, 128, 0.5)
    assert window is not None
    tiles = Tiles(size=128, mpps=(0.5,), hsv_filter=None)
    with SlideReader() as reader:
        reader.read(record, window, 100, 200)
        assert bool(reader._direct.open) == (compression == "jpeg")
    # the same sizes in px, so that only the file tells; its time is set, for it may be replaced within a second
    write_slide(path, right, 0.5, compression=compression)
    os.utime(path, (record.modified + 60, record.modified + 60))
    with (
        SlideReader() as reader,
        pytest.raises(SlideError, match="changed since its mask was made"),
    ):
        reader.read(record, window, 100, 200)
    source = OnlineSource({"c": (index, 1.0)}, tiles, 0, tmp_path / "quarantined.tsv")
    with pytest.raises(MidnightError, match="1 slides can't be read"):
        source.tiles(range(2))
    lost = read_quarantine(tmp_path / "quarantined.tsv")
    assert [slide.reason for slide in lost] == ["changed since its mask was made; run the workflow again"]
    make_index(tmp_path, [path])
    with SlideReader() as reader:
        assert reader.read(read_index(index)[0], window, 100, 200).shape == (128, 128, 3)
