"""The periodic probe: what the teacher makes of a few fixed tiles, for the training curves only.

The tiles come from the run's own slides and are drawn once, by the recipe's tile settings and a seed of their own, each
in two stains: `label_free` measures what embeddings say without labels. Where the slides have labels (`probe_labels`),
nearest neighbours are classified too. No tile or label of a reported benchmark is among them. Since training sees the
same slides, nothing here is a measure of a model, only of its progress, and no score record or ranking has it.
"""

import contextlib
import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from midnight.atomic import write_json
from midnight.config import Recipe
from midnight.errors import MidnightError
from midnight.ssl import distributed, runtime
from midnight.ssl.model.backbone import MaskedViT, build_vit
from midnight.ssl.monitor.knn import balanced_accuracy, knn_predict
from midnight.ssl.monitor.label_free import STAIN_SIGMA, describe
from midnight.ssl.monitor.probe_labels import LabelPlan, plan_labels
from midnight.ssl.step import normalise
from midnight.tiles.augment.hed import augment
from midnight.tiles.draw.drawer import TileDrawer
from midnight.tiles.draw.sampler import TileSampler
from midnight.tiles.read.reader import SlideReader

log = logging.getLogger(__name__)

FILE = "probe.json"
# Added to the recipe's seed, so that training's draws and the probe's are independent.
SEED = 0x9E37_79B9_7F4A_7C15
NEITHER, TRAIN, TEST = -1, 0, 1


@dataclass(frozen=True)
class ProbeTiles:
    """This process's share of the tiles: images uint8 [N, 1, 3, G, G], as they are and in another stain.

    labels, sides (TEST, …) and slides int64 [N]; `sides` is NEITHER where a tile does not count. Sample i is with
    process i modulo the number of processes.
    """

    images: Tensor
    restained: Tensor
    labels: Tensor
    sides: Tensor
    slides: Tensor


class Probe:
    """Fixed tiles, and what a backbone makes of them. All processes must call each method together."""

    def __init__(self, recipe: Recipe, plan: LabelPlan, tiles: ProbeTiles, device: torch.device) -> None:
        self.recipe, self.plan, self.device = recipe, plan, device
        self.images, self.restained = tiles.images, tiles.restained
        facts = torch.stack([tiles.labels, tiles.sides, tiles.slides], dim=1).to(device)
        self.labels, self.sides, self.slides = torch.cat(distributed.gather_plain(facts)).unbind(1)

    def due(self, step: int) -> bool:
        """Whether to measure after this many micro-steps: every `training.probe_every`, and at the end."""
        training = self.recipe.training
        return step % training.probe_every == 0 or step == training.iterations

    def measure(self, backbone: nn.Module) -> dict[str, float]:
        """What `midnight.ssl.monitor.label_free` measures and, with labels, `knn`, the balanced accuracy over them.

        All are NaN for embeddings that are not finite. Random generators and the backbone's mode stay as they were.

        Args:
            backbone: of images float32 [B, 3, G, G] it gives an object with `cls` [B, D] (`MaskedViT`, the teacher's).
        """
        counted = self.sides != NEITHER
        rows, restained = (self._embed(backbone, images) for images in (self.images, self.restained))
        found = describe(rows[counted], restained[counted], self.slides[counted])
        if self.labelled:
            found["knn"] = math.nan if math.isnan(found["probe_rank"]) else self._accuracy(rows)
        return found

    @property
    def labelled(self) -> bool:
        """Whether the tiles have labels."""
        return self.plan.kind == "project"

    def _accuracy(self, rows: Tensor) -> float:
        train, test = self.sides == TRAIN, self.sides == TEST
        predicted = knn_predict(rows[train], self.labels[train], rows[test])
        return balanced_accuracy(predicted, self.labels[test])

    def start(self, backbone: nn.Module) -> dict[str, float]:
        """Before the first step: what `measure` gives, and the same at random init as `…_random_init`."""
        measured = self.measure(backbone)
        random = measured if self.recipe.backbone.init == "random" else self.measure(self._random_backbone())
        return measured | {f"{name}_random_init": value for name, value in random.items()}

    @torch.no_grad()
    def _embed(self, backbone: nn.Module, tiles: Tensor) -> Tensor:
        """CLS embeddings of all processes' tiles, float32 [world · N, D], in the order of `labels`."""
        rows, training = [], self.recipe.training
        # Always as many as the teacher sees in a step, so that what was compiled for that size serves here too.
        batch = 2 * training.batch_size
        with _undisturbed(backbone, self.device):
            for images in tiles.split(batch):
                full = torch.cat([images, images[:1].expand(batch - len(images), -1, -1, -1, -1)])
                with runtime.autocast(self.device, training):
                    cls = backbone(normalise(full, self.recipe.crops, self.device)).cls
                rows.append(cls[: len(images)].float())
        return torch.cat(distributed.gather_plain(torch.cat(rows)))

    def _random_backbone(self) -> nn.Module:
        """The run's architecture at random init; with LayerScale 1, since with timm's 1e-5 CLS would be constant."""
        backbone = replace(self.recipe.backbone, layer_scale=self.recipe.backbone.layer_scale or 1.0)
        with _undisturbed(None, self.device):
            torch.manual_seed(self.recipe.seed)
            return MaskedViT(build_vit(backbone, self.recipe.crops.global_size)).to(self.device)


def open_probe(
    recipe: Recipe, cohorts: Mapping[str, Path], manifests: Mapping[str, Path], output: Path, device: torch.device
) -> Probe | None:
    """Draw the probe's tiles; None where the recipe asks for none, or, with a warning, where the slides allow none.

    Each process draws its share. How many there are, and their labels, goes into `probe.json`, for the report.

    Args:
        recipe: `training.probe_every` and `probe_tiles`, tiles, crops and seed.
        cohorts: tissue index by cohort; without any there is no probe.
        manifests: manifest by cohort, for projects and patients; may lack some or all.
        output: the run's folder.
        device: where embeddings are made.
    """
    if not recipe.training.probe_every or not cohorts:
        return None
    drawn, reason = None, ""
    try:
        plan = plan_labels(cohorts, manifests, recipe.tiles, recipe.seed)
        drawn = plan, draw_tiles(recipe, plan)
    except MidnightError as error:
        reason = str(error)
    # A slide may be readable for one process and not for another; then all go on without.
    failed = distributed.all_sum(torch.tensor(float(drawn is None), device=device))
    if drawn is None or failed > 0:
        log.warning("no probe while training: %s", reason or "another process has no tiles for it")
        return None
    probe = Probe(recipe, *drawn, device)
    if probe.labelled and not all((probe.sides == side).any() for side in (TRAIN, TEST)):
        log.warning("no probe while training: too few tiles on one side; raise training.probe_tiles")
        return None
    if distributed.rank() == 0:
        _describe(probe, output / FILE)
    return probe


def draw_tiles(recipe: Recipe, plan: LabelPlan) -> ProbeTiles:
    """This process's share of `training.probe_tiles` tiles, whole and without augmentation, at the global crops' size.

    Every tile is a function of the recipe and its number alone, whatever the number of processes.

    Raises:
        MidnightError: no tile is accepted, or a mask can't be read.
    """
    count, world = recipe.training.probe_tiles, distributed.world()
    sampler = TileSampler({str(n): (slides, 1.0) for n, slides in enumerate(plan.sources)}, recipe.tiles)
    reader = SlideReader(recipe.tiles.max_open_slides, sampler.patience)
    drawer = TileDrawer(sampler, reader, (recipe.seed + SEED) % 2**64)
    images, restained, facts = [], [], []
    with contextlib.closing(drawer):
        # As many on each process, as gathering needs; those past the end count on no side.
        for index in range(distributed.rank(), -(-count // world) * world, world):
            tile = drawer.draw(index)
            images.append(_resize(tile.pixels, recipe.crops.global_size))
            stain = np.random.default_rng([SEED, recipe.seed, index])
            restained.append(_resize(augment(tile.pixels, stain, STAIN_SIGMA), recipe.crops.global_size))
            label, test = plan.place(tile.cohort)
            side = TEST if test else TRAIN
            facts.append((label, side if index < count else NEITHER, tile.slide))
    labels, sides, slides = torch.tensor(facts).unbind(1)
    return ProbeTiles(_as_views(images), _as_views(restained), labels, sides, slides)


def _as_views(tiles: list[np.ndarray]) -> Tensor:
    """uint8 [N, 1, 3, H, W]: tiles as `normalise` takes them, of one view."""
    return torch.from_numpy(np.stack(tiles)).permute(0, 3, 1, 2).unsqueeze(1)


def _resize(pixels: np.ndarray, side: int) -> np.ndarray:
    return cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA)


def _describe(probe: Probe, path: Path) -> None:
    counts = [int((probe.sides == side).sum()) for side in (TRAIN, TEST)]
    slides = len(probe.slides.unique())
    facts = {"labels": probe.plan.kind, "names": probe.plan.labels, "train": counts[0], "test": counts[1]}
    write_json(path, facts | {"slides": slides})


@contextlib.contextmanager
def _undisturbed(module: nn.Module | None, device: torch.device) -> Iterator[None]:
    """Evaluation mode inside; random generators and the mode are as before afterwards."""
    training = module is not None and module.training
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            if module is not None and training:
                module.eval()
            yield
        finally:
            if module is not None and training:
                module.train()
