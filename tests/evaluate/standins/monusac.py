"""MoNuSAC: a folder of TIFFs per patient, each with the outlines of its nuclei as XML. Full counts of tiny images."""

from pathlib import Path

import cv2
import numpy as np

from tests.evaluate.standins.pixels import colour, count

SIDE = 40
COUNTS = {"train": ("MoNuSAC_images_and_annotations", 209), "val": ("MoNuSAC Testing Data and Annotations", 85)}
CLASSES = ("Epithelial", "Lymphocyte", "Neutrophil", "Macrophage", "Ambiguous")
CORNERS = ((2, 2), (2, 22), (22, 2), (22, 22))
NUCLEUS = 16


def write_monusac(root: Path) -> dict[str, dict[int, int]]:
    """Write the 294 images, four nuclei each; ambiguous ones only in the test part."""
    truth = {}
    for role, (folder, n) in COUNTS.items():
        nuclei = [[(index + place) % (4 if role == "train" else 5) for place in range(4)] for index in range(n)]
        for index, kinds in enumerate(nuclei):
            patient = f"TCGA-{index // 5:02d}-0000"
            _write_image(root / folder / patient / f"{patient}_{index % 5 + 1}.tif", kinds)
        truth[role] = {0: n} | count(kind + 1 for kinds in nuclei for kind in kinds)
    return truth


def _write_image(path: Path, nuclei: list[int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.broadcast_to(colour(0, 6), (SIDE, SIDE, 3)).copy()
    for (top, left), number in zip(CORNERS, nuclei, strict=True):
        image[top : top + NUCLEUS, left : left + NUCLEUS] = colour(number + 1, 6)
    cv2.imwrite(str(path), image[..., ::-1])
    outlines = "".join(_annotation(*place) for place in zip(CORNERS, nuclei, strict=True))
    path.with_suffix(".xml").write_text(f"<Annotations>{outlines}</Annotations>")


def _annotation(corner: tuple[int, int], number: int) -> str:
    top, left = corner
    square = ((left, top), (left + NUCLEUS, top), (left + NUCLEUS, top + NUCLEUS), (left, top + NUCLEUS))
    vertices = "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in square)
    attributes = f'<Attributes><Attribute Name="{CLASSES[number]}" Value=""/></Attributes>'
    regions = (
        f"<Regions><RegionAttributeHeaders/><Region><Attributes/><Vertices>{vertices}</Vertices></Region></Regions>"
    )
    return f"<Annotation>{attributes}{regions}</Annotation>"
