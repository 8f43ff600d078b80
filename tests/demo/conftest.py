"""One small cohort and one small set of benchmarks for all tests of the demo."""

from pathlib import Path

import pytest

from midnight.demo.benchmarks import write_benchmarks
from midnight.demo.slides import write_slides

SEED = 5
SIZE = 1536
SCALE = 0.05


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    write_slides(folder, 4, SIZE, SEED)
    return folder


@pytest.fixture(scope="session")
def benchmark_sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmarks")
    write_benchmarks(folder, SEED, SCALE)
    return folder
