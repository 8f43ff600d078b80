from pathlib import Path

from midnight.logs import redirect

with redirect(snakemake.log[0]):
    from midnight.report.figures import draw_curves

    metrics = Path(snakemake.input[0]).parent / "metrics.jsonl"
    draw_curves(metrics, Path(snakemake.output[0]), snakemake.wildcards.run)
