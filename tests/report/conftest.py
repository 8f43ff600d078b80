"""One complete example for all tests of the page."""

import pytest

from midnight.report.page import ReportInputs
from tests.report.example import write_example


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> ReportInputs:
    return write_example(tmp_path_factory.mktemp("example"))
