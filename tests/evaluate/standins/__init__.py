"""One small generator per data set, in the layout in which eva 0.4.5 reads it.

Each writes below a root and returns what eva must find there: role → class number → tiles (segmentation: images).
"""

from collections.abc import Callable
from pathlib import Path

from tests.evaluate.standins.bach import write_bach
from tests.evaluate.standins.bracs import write_bracs
from tests.evaluate.standins.breakhis import write_breakhis
from tests.evaluate.standins.camelyon16 import write_camelyon16
from tests.evaluate.standins.consep import write_consep
from tests.evaluate.standins.crc import write_crc
from tests.evaluate.standins.gleason import write_gleason
from tests.evaluate.standins.mhist import write_mhist
from tests.evaluate.standins.monusac import write_monusac
from tests.evaluate.standins.panda import write_panda
from tests.evaluate.standins.patch_camelyon import write_patch_camelyon

Truth = dict[str, dict[int, int]]

WRITERS: dict[str, Callable[[Path], Truth]] = {
    "pcam-10shot": write_patch_camelyon,
    "bach": write_bach,
    "bracs": write_bracs,
    "breakhis": write_breakhis,
    "crc": write_crc,
    "gleason": write_gleason,
    "mhist": write_mhist,
    "pcam": write_patch_camelyon,
    "camelyon16-small": write_camelyon16,
    "panda-small": write_panda,
    "consep": write_consep,
    "monusac": write_monusac,
}
"""Task of `config/tasks.yaml`: the generator of its data."""

FOLDERS = {
    "pcam-10shot": "patch_camelyon",
    "bach": "bach",
    "bracs": "bracs",
    "breakhis": "breakhis",
    "crc": "crc",
    "gleason": "arvaniti_gleason_patches",
    "mhist": "mhist",
    "pcam": "patch_camelyon",
    "camelyon16-small": "camelyon16",
    "panda-small": "panda/prostate-cancer-grade-assessment",
    "consep": "consep",
    "monusac": "monusac",
}
"""Task: the folder below the data root in which eva's own configurations look for its data."""

RELAXED = ("bracs", "crc", "gleason", "panda-small", "pcam-10shot", "pcam")
"""Tasks with fewer stand-ins than eva counts: their class is that of `midnight.evaluate.relaxed`."""


class Data:
    """Stand-ins below one data root, each written when it is first asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.truths: dict[str, Truth] = {}

    def truth(self, task: str) -> Truth:
        folder = FOLDERS[task]
        if folder not in self.truths:
            self.truths[folder] = WRITERS[task](self.root / folder)
        return self.truths[folder]
