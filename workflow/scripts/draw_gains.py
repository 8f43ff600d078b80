from pathlib import Path

from midnight.logs import redirect

with redirect(snakemake.log[0]):
    from midnight.report.compose import draw_score_gains

    scores = [Path(score) for score in snakemake.input]
    draw_score_gains(scores, Path(snakemake.output[0]), snakemake.params.weights)
