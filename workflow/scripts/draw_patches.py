from pathlib import Path

from midnight.logs import redirect

with redirect(snakemake.log[0]):
    from midnight.config import Tiles, build
    from midnight.report.compose import draw_patch_maps

    folders = {Path(file).parent.name: Path(file).parent for file in snakemake.input.models}
    labelled = {label: folders[model] for model, label in snakemake.params.models.items()}
    tiles = build(Tiles, snakemake.params.tiles, "tiles")
    draw_patch_maps(labelled, Path(snakemake.input.index[0]), tiles, snakemake.params.seed, Path(snakemake.output[0]))
