"""What embeddings say of themselves, without a label: for the training curves.

`benchmarks/label_free.py` holds these against labelled tasks, checkpoint by checkpoint. Within a run separation orders
checkpoints best, then agreement and the spectrum's decay; places found and slides mixed do not follow quality. The
report draws the rank, separation and agreement.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from midnight.ssl.monitor.metrics import effective_rank

MEASURES = ("probe_rank", "probe_decay", "agreement", "places", "separation", "mixing")
NEIGHBOURS = 10
STAIN_SIGMA = 0.2
"""Strength of the second stain: "strong" of Tellez et al. 2019, more than training sees."""


@torch.no_grad()
def describe(rows: Tensor, restained: Tensor, slides: Tensor) -> dict[str, float]:
    """All measures by name, NaN for embeddings that are not finite.

    Args:
        rows: embeddings [N, D] of tiles.
        restained: embeddings [N, D] of the same tiles in another stain.
        slides: int64 [N], the slide of each.
    """
    if not (torch.isfinite(rows).all() and torch.isfinite(restained).all()):
        return dict.fromkeys(MEASURES, math.nan)
    return {
        "probe_rank": float(effective_rank(rows)),
        "probe_decay": spectrum_decay(rows),
        "agreement": neighbour_agreement(rows, restained, slides),
        "places": places_found(rows, restained),
        "separation": separation(rows, restained),
        "mixing": slides_mixed(rows, slides),
    }


@torch.no_grad()
def neighbour_agreement(rows: Tensor, restained: Tensor, slides: Tensor, neighbours: int = NEIGHBOURS) -> float:
    """Share of its nearest tiles on other slides that a tile keeps when it is stained otherwise; from 0 to 1.

    High where neighbours are alike in tissue, low where they are alike in colour. Of one slide alone: among its other
    tiles. A constant embedding keeps its neighbours too: read it beside the effective rank.

    Args:
        rows: embeddings [N, D] of tiles.
        restained: embeddings [N, D] of the same tiles in another stain.
        slides: int64 [N], the slide of each.
        neighbours: how many are compared.
    """
    gallery = F.normalize(rows.float(), dim=-1)
    alone = bool((slides == slides[0]).all())
    itself = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    hidden = itself if alone else slides[:, None] == slides[None, :]
    count = min(neighbours, int((~hidden).sum(dim=1).min()))
    if count < 1:
        return math.nan
    sets = [
        (F.normalize(queries.float(), dim=-1) @ gallery.T).masked_fill(hidden, -torch.inf).topk(count).indices
        for queries in (rows, restained)
    ]
    return float((sets[0][:, :, None] == sets[1][:, None, :]).any(dim=-1).float().mean())


@torch.no_grad()
def places_found(rows: Tensor, restained: Tensor) -> float:
    """Share of the tiles [N, D] whose other stain [N, D] is nearest to themselves, among all: chance is 1/N."""
    cosines = F.normalize(restained.float(), dim=-1) @ F.normalize(rows.float(), dim=-1).T
    return float((cosines.argmax(dim=1) == torch.arange(len(rows), device=rows.device)).float().mean())


@torch.no_grad()
def separation(rows: Tensor, restained: Tensor) -> float:
    """How far a tile's other stain is from other tiles: difference of the mean cosines in deviations of the latter."""
    ours, theirs = F.normalize(rows.float(), dim=-1), F.normalize(restained.float(), dim=-1)
    others = (ours @ ours.T)[~torch.eye(len(rows), dtype=torch.bool, device=rows.device)]
    return float(((ours * theirs).sum(dim=-1).mean() - others.mean()) / others.std().clamp_min(1e-12))


@torch.no_grad()
def slides_mixed(rows: Tensor, slides: Tensor, neighbours: int = NEIGHBOURS) -> float:
    """Share of the nearest tiles [N, D] on other slides, of what chance would give: 1 is mixed as by chance."""
    ours = F.normalize(rows.float(), dim=-1)
    cosines = (ours @ ours.T).fill_diagonal_(-torch.inf)
    nearest = cosines.topk(min(neighbours, len(rows) - 1)).indices
    other = slides[:, None] != slides[None, :]
    chance = other.float().sum(dim=1) / (len(rows) - 1)
    return float((other.gather(1, nearest).float().mean(dim=1)).mean() / chance.mean().clamp_min(1e-12))


@torch.no_grad()
def spectrum_decay(rows: Tensor) -> float:
    """α-ReQ: the exponent by which the eigenvalues of the covariance of [N, D] fall; near 1 is said to be best.

    Fitted by least squares to log λ over log of its number, from the 4th to the half of them (Agrawal et al. 2022,
    arXiv 2202.05808, section 3, which fits over a middle range too).
    """
    centred = rows.double() - rows.double().mean(dim=0)
    if not torch.isfinite(centred).all():
        return math.nan
    values = torch.linalg.svdvals(centred).square()
    number = torch.arange(1, len(values) + 1, dtype=torch.float64)
    kept = slice(3, max(6, min(rows.shape) // 2))
    x, y = number[kept].log(), values[kept].cpu().clamp_min(1e-30).log()
    return float(-((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())
