"""Slides that are left out on purpose, listed with reasons in a CSV."""

import csv
import logging
from collections.abc import Sequence
from pathlib import Path

from midnight.errors import ConfigError
from midnight.slides.record import Refused, Slide

logger = logging.getLogger(__name__)

DEFAULT_REASON = "listed in the exclude file"


def read_exclude(path: str | Path) -> dict[str, str]:
    """File ids or slide ids to leave out, with reasons.

    A CSV with a column `file_id` or `slide_id` (the former counts where a row has both) and optionally `reason`.

    Raises:
        ConfigError: the file can't be read, or has neither column.
    """
    try:
        with Path(path).expanduser().open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = set(reader.fieldnames or ())
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: the list of excluded slides can't be read: {error}") from error
    if not columns & {"file_id", "slide_id"}:
        raise ConfigError(f"{path}: needs a column file_id or slide_id; it has {', '.join(sorted(columns)) or 'none'}")
    keys = [(row.get("file_id") or row.get("slide_id") or "").strip() for row in rows]
    reasons = [" ".join((row.get("reason") or DEFAULT_REASON).split()) for row in rows]
    return {key: reason or DEFAULT_REASON for key, reason in zip(keys, reasons, strict=True) if key}


def leave_out(slides: Sequence[Slide], path: str | Path) -> tuple[list[Slide], list[Refused]]:
    """`slides` without those that the CSV lists, and the latter with their reasons."""
    listed = read_exclude(path)
    kept, excluded, used = [], [], set()
    for slide in slides:
        key = next((key for key in (slide.file_id, slide.slide_id) if key in listed), None)
        if key is None:
            kept.append(slide)
        else:
            excluded.append(Refused(slide.slide_id, listed[key]))
            used.add(key)
    if unknown := len(listed) - len(used):
        logger.warning("%s: %d of %d listed slides are not in the cohort", path, unknown, len(listed))
    return kept, excluded
