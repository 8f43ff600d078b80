from pathlib import Path

from midnight.logs import redirect

with redirect(snakemake.log[0]):
    from midnight.report.compose import draw_score_gains

    weights = snakemake.config.get("evaluation", {}).get("weights")
    draw_score_gains([Path(score) for score in snakemake.input], Path(snakemake.output[0]), weights)
