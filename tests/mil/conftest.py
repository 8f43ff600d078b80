"""A tiny model and slides of known content."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.evaluate.conftest import make_model  # noqa: F401
from tests.tissue.small_slides import tissue_image, write_slide


@pytest.fixture
def model(make_model: Callable[[int], Path]) -> Path:  # noqa: F811
    return make_model(0)


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    """Two slides at 0.25 and 0.5 µm/px with tissue, one of glass, one that is no slide, and one of another format."""
    folder = tmp_path / "slides"
    folder.mkdir()
    write_slide(folder / "fine.svs", tissue_image(2000, 2400, [(240, 400, 1500, 1200)]), 0.25)
    write_slide(folder / "half.svs", tissue_image(1200, 1200, [(100, 200, 900, 700)]), 0.5)
    write_slide(folder / "glass.svs", tissue_image(1200, 1200, []), 0.5)
    (folder / "page.svs").write_text("<html>Please log in</html>")
    (folder / "other.vsi").write_bytes(b"x")
    return folder
