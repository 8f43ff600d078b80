from pathlib import Path

from midnight.logs import redirect

with redirect(snakemake.log[0]):
    from midnight.report.compose import compose_report

    compose_report(
        config=snakemake.params.config,
        scores=[Path(score) for score in snakemake.input.scores],
        slides=[Path(table) for table in snakemake.input.slides],
        tissue=[Path(index) for index in snakemake.input.tissue],
        manifests=[Path(manifest) for manifest in snakemake.input.manifests],
        tile_lists=[Path(path) for path in snakemake.input.tile_lists],
        runs={Path(card).parent.name: Path(card).parent for card in snakemake.input.runs},
        figure_files=[Path(figure) for figure in snakemake.input.figures],
        benchmarks=Path(snakemake.params.benchmarks),
        output=Path(snakemake.output[0]),
    )
