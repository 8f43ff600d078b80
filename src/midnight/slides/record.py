"""One slide of a manifest."""

from dataclasses import dataclass, field
from typing import Any

SUFFIXES = frozenset(
    (".svs", ".tif", ".tiff", ".ndpi", ".vms", ".vmu", ".scn", ".mrxs", ".svslide", ".bif", ".czi", ".dcm")
)
"""File suffixes of the formats that OpenSlide 4 reads."""


@dataclass(frozen=True)
class Slide:
    """One row of `manifest.tsv`.

    Attributes:
        slide_id: unique in the cohort; safe as a file name.
        source: gdc or local.
        file_id: the service's id; for local slides a hash of the path.
        file_name: the file's name, without folder.
        size: bytes.
        md5: hex digest; empty for local slides.
        project_id: such as TCGA-LUSC; may be empty.
        case_id: the patient, such as TCGA-22-1017; may be empty.
        extra: whatever else the source says: path and mpp (µm/px) of local slides, sample_type, access, …
    """

    slide_id: str
    source: str
    file_id: str
    file_name: str
    size: int
    md5: str
    project_id: str = ""
    case_id: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Refused:
    """A slide that was left out of a manifest, and why."""

    name: str
    reason: str
