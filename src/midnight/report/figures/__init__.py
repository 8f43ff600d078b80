"""Figures: one `draw_*` function per figure, each writes one self-describing file.

File names are `{kind}-{name}.svg` or `.png`; the page places a figure by its kind (`KINDS`) and takes title,
alternative text and caption from the file itself (`midnight.report.figures.style.save`).
"""

from midnight.report.figures.curves import draw_curves
from midnight.report.figures.gains import draw_gains
from midnight.report.figures.hed import draw_stain, variants
from midnight.report.figures.patches import draw_patches, patch_tokens
from midnight.report.figures.tiles import draw_tiles
from midnight.report.figures.tissue import draw_tissue
from midnight.report.figures.tsne import draw_tsne, read_embeddings

__all__ = [
    "draw_curves",
    "draw_gains",
    "draw_patches",
    "draw_stain",
    "draw_tiles",
    "draw_tissue",
    "draw_tsne",
    "patch_tokens",
    "read_embeddings",
    "variants",
]
