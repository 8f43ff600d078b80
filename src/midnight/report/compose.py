"""What the report's rules call: gathers the pieces of a figure or of the page and hands them on."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from midnight.config import Tiles
from midnight.config.pipeline import is_generated
from midnight.report import figures
from midnight.report.comparison import compare_to_random
from midnight.report.labels import asked_tasks, read_labels
from midnight.report.page import ReportInputs, build_report
from midnight.report.scores import load_scores

EXAMPLES = 48
VARIANTS = 7
PATCH_TILES = 4


def draw_cohort(index: Path, tiles: Tiles, cohort: str, seed: int, outputs: Mapping[str, Path]) -> None:
    """Fig. A1 for one cohort and its masks: accepted and rejected tiles, HED draws of one tile, tissue outlines.

    Args:
        index: the cohort's tissue index.
        tiles: which tiles are drawn, filtered and augmented how.
        cohort: name for the titles.
        seed: of the examples.
        outputs: files for "tiles", "stain" and "tissue".
    """
    from midnight.tiles.draw.examples import draw_examples

    examples = draw_examples(index, tiles, EXAMPLES, seed)
    figures.draw_tiles(examples, outputs["tiles"], cohort)
    accepted = [example.tile for example in examples if example.accepted] or [example.tile for example in examples]
    tile = accepted[0] if accepted else np.full((tiles.size, tiles.size, 3), 255, np.uint8)
    variants = figures.variants(tile, tiles.hed_sigma, VARIANTS, seed)
    figures.draw_stain(tile, variants, outputs["stain"], tiles.hed_sigma, cohort)
    figures.draw_tissue(index, outputs["tissue"], cohort)


def draw_patch_maps(models: Mapping[str, Path], index: Path, tiles: Tiles, seed: int, output: Path) -> None:
    """Principal components of the patch tokens of each model (label: folder) on a few accepted tiles of a cohort."""
    from midnight.tiles.draw.examples import draw_examples

    examples = [example for example in draw_examples(index, tiles, EXAMPLES, seed) if example.accepted][:PATCH_TILES]
    images = np.array([example.tile for example in examples], np.uint8)
    tokens = {label: figures.patch_tokens(folder, images) for label, folder in models.items()} if examples else {}
    figures.draw_patches(images, tokens, output)


def draw_score_gains(scores: Sequence[Path], output: Path, weights: Mapping[str, Any] | None = None) -> None:
    """Trained models against their random initialisation, CLS+Mean where it was scored.

    Args:
        scores: score records.
        output: the figure.
        weights: models of the configuration (`evaluation.weights`).
    """
    records = load_scores(scores)
    comparisons = compare_to_random(records, read_labels([], weights).sources)
    pooled = [item for item in comparisons if item.pooling == "cls_mean"]
    figures.draw_gains(pooled or comparisons, output)


def compose_report(
    config: Mapping[str, Any],
    scores: Sequence[Path],
    slides: Sequence[Path],
    tissue: Sequence[Path],
    runs: Mapping[str, Path],
    figure_files: Sequence[Path],
    benchmarks: Path,
    output: Path,
    failed: Mapping[str, str] | None = None,
    manifests: Sequence[Path] = (),
    tile_lists: Sequence[Path] = (),
) -> None:
    """Write the page from the workflow's files; the title and the banner follow the configuration.

    `failed`: models without scores and why. `manifests`: the cohorts', for what was refused at pinning. `tile_lists`:
    of the folders of tiles that runs trained on.
    """
    data = cast(Literal["real", "demo"], config["data"])
    inputs = ReportInputs(
        title="Midnight: the demo" if is_generated(data) else "Midnight",
        data=data,
        scores=scores,
        slides=slides,
        tissue=tissue,
        manifests=manifests,
        tile_lists=tile_lists,
        runs=runs,
        figures=figure_files,
        benchmarks=benchmarks,
        config=config,
        failed=failed or {},
        labels=read_labels(asked_tasks(config["evaluation"]), config["evaluation"].get("weights")),
    )
    build_report(inputs, output)
