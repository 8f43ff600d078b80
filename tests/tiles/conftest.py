from pathlib import Path

import numpy as np
import pytest

from midnight.config import Crops, HsvFilter, Tiles
from tests.tissue.small_slides import make_index, tissue_image, write_slide

SIZE = 64


@pytest.fixture(scope="session")
def images() -> dict[str, np.ndarray]:
    """Two slides: one with tissue over half of it, one with two small pieces."""
    return {
        "large": tissue_image(1203, 1602, [(100, 100, 1000, 900)], seed=1),
        "small": tissue_image(1000, 1400, [(80, 80, 330, 340), (600, 900, 320, 360)], seed=2),
    }


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory, images: dict[str, np.ndarray]) -> Path:
    folder = tmp_path_factory.mktemp("index")
    slides = [write_slide(folder / f"{name}.svs", image, 0.5, 20) for name, image in images.items()]
    return make_index(folder, slides)


@pytest.fixture
def tiles() -> Tiles:
    return Tiles(size=SIZE, mpps=(0.5, 1.0, 2.0), hsv_filter=HsvFilter(), max_open_slides=2)


@pytest.fixture
def crops() -> Crops:
    return Crops(global_size=28, local_size=14, n_local=3)
