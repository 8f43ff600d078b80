"""What libraries print, kept out of our output."""

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars, tables, tips and warnings of eva, Lightning and their friends."""
    before = logging.root.manager.disable
    bars = os.environ.get("TQDM_REFRESH_RATE")
    os.environ["TQDM_REFRESH_RATE"] = "0"
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            _silence_loguru()
            logging.disable(logging.INFO)
            yield
    finally:
        logging.disable(before)
        os.environ.pop("TQDM_REFRESH_RATE")
        if bars is not None:
            os.environ["TQDM_REFRESH_RATE"] = bars


def _silence_loguru() -> None:
    from loguru import logger

    logger.disable("eva")
