"""What to do about a slide that was left out, by the reason."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from midnight.report.ledger import Quarantined

NAMED = 3
"""Slides of one kind that are named."""
VARYING = re.compile(r"\S*[/\\]\S+|'[^']*'|\b[0-9a-f]{8,}\b|\d[\d.,]*")
"""What differs between slides with the same trouble: paths, quotes, checksums, numbers."""
GIVEN = ("give mpp", "set tissue.segmenter", "get it again", "download it again", "workflow again")
"""A reason that has one of these says itself what to do."""
CURES = (
    (r"unavailable for now", "the next run tries again"),
    (
        r"md5 mismatch|size mismatch",
        "the service has a damaged file or the manifest an old entry: pin the manifest again, or list it in `exclude`",
    ),
    (r"no tissue", "look at tissue/{cohort}/qc.html; try `midnight tiles show SLIDE --segmenter otsu`"),
    (r"no resolution|not square|µm/px", "give mpp in a CSV: path,mpp"),
    (r"format|HTML|XML", "convert it to a pyramidal TIFF, or take it out of the folder"),
    (r"permission|may not be read", "make it readable"),
    (r"zeros|cut short|empty|damaged|truncated|can't be read|beyond", "get a new copy; the next run notices it"),
)


@dataclass(frozen=True)
class Trouble:
    """Slides of one cohort, left out at the same stage for the same kind of reason."""

    cohort: str
    stage: str
    reason: str
    cure: str
    slides: tuple[str, ...]

    @property
    def names(self) -> str:
        """`a, b, c and 12 more`."""
        more = len(self.slides) - NAMED
        return ", ".join(self.slides[:NAMED]) + (f" and {more} more" if more > 0 else "")


def troubles(left_out: Iterable[Quarantined]) -> list[Trouble]:
    """Slides with the same trouble together, the commonest first; the reason is the first slide's."""
    groups: dict[tuple[str, str, str], list[Quarantined]] = {}
    for slide in left_out:
        groups.setdefault((slide.cohort, slide.stage, VARYING.sub("#", slide.reason)), []).append(slide)
    return sorted(map(_trouble, groups.values()), key=lambda trouble: -len(trouble.slides))


def _trouble(slides: Sequence[Quarantined]) -> Trouble:
    first = slides[0]
    names = tuple(slide.slide_id for slide in slides)
    return Trouble(first.cohort, first.stage, first.reason, cure(first.reason, first.cohort), names)


def cure(reason: str, cohort: str) -> str:
    """What to do, on half a line; empty where the reason says it, or nothing is known."""
    if any(words in reason for words in GIVEN):
        return ""
    found = (text for pattern, text in CURES if re.search(pattern, reason, re.IGNORECASE))
    return next(found, "").replace("{cohort}", cohort)
