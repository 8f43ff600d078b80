"""What the demo's tissue is made of: tissue classes of a region, kinds of nuclei in it."""

from enum import IntEnum


class TissueClass(IntEnum):
    """Tissue class of a region; the value is that of the pixels in `{name}.classes.png`."""

    BACKGROUND = 0
    FAT = 1
    STROMA = 2
    GLAND = 3
    LYMPHOCYTES = 4
    TUMOUR = 5


class Nucleus(IntEnum):
    """Kind of a nucleus; kinds differ in size, shape and chromatin, not in stain; OTHER are dividing or dying cells."""

    FIBROBLAST = 0
    EPITHELIAL = 1
    LYMPHOCYTE = 2
    TUMOUR = 3
    OTHER = 4


PALETTE: dict[TissueClass, tuple[int, int, int]] = {
    TissueClass.BACKGROUND: (255, 255, 255),
    TissueClass.FAT: (240, 228, 66),
    TissueClass.STROMA: (204, 121, 167),
    TissueClass.GLAND: (0, 158, 115),
    TissueClass.LYMPHOCYTES: (0, 114, 178),
    TissueClass.TUMOUR: (213, 94, 0),
}
"""Colours of the class maps, distinguishable also by colour-blind people (Okabe and Ito)."""
