"""The few facts of a DICOM file's header that say which slide it belongs to.

A slide is a series: a file for each level of the pyramid, and others for its label and overview. OpenSlide opens all
of a series by any of its levels. Only the elements before the pixels are read, a few kB.
"""

import struct
import warnings
from dataclasses import dataclass
from pathlib import Path

WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
TAGS = ("SOPClassUID", "SeriesInstanceUID", "ImageType", "TotalPixelMatrixColumns", "TotalPixelMatrixRows")
KINDS = frozenset(("VOLUME", "LABEL", "OVERVIEW", "THUMBNAIL"))


@dataclass(frozen=True)
class SlideFile:
    """One file of a slide: its series, what it shows (VOLUME, LABEL, OVERVIEW, THUMBNAIL), and its size in px."""

    series: str
    kind: str
    width: int
    height: int

    @property
    def is_level(self) -> bool:
        """Whether it is a level of the pyramid, not its label or overview."""
        return self.kind == "VOLUME"


def read_slide_file(path: Path) -> SlideFile | None:
    """What a DICOM file is of; None if it can't be read, or does not say that it is part of one."""
    import pydicom  # half a second, which no run without DICOM should wait for
    from pydicom.errors import BytesLengthException, InvalidDicomError

    # What pydicom raises for files that are cut short or are something else.
    damaged = (InvalidDicomError, BytesLengthException, AttributeError, NotImplementedError, KeyError, struct.error)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd values of elements that don't matter here
            found = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(TAGS))
            sop_class, series, kinds, columns, rows = (found.get(tag) for tag in TAGS)
    except (*damaged, OSError, ValueError, TypeError):
        return None
    # The size comes last: where it is there, no value before it was cut short.
    if sop_class != WHOLE_SLIDE or None in (series, kinds, columns, rows) or isinstance(kinds, str) or len(kinds) < 3:
        return None
    kind = str(kinds[2])
    return SlideFile(str(series), kind, int(columns), int(rows)) if kind in KINDS else None
