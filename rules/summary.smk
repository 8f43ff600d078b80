# What a run says at its end, on the terminal and in Snakemake's log. No rules.
from snakemake.logging import logger

from midnight.report.asked import Asked, AskedModel, write_asked
from midnight.report.summary import summary


def note_asked():
    """Keep what is asked for beside the results, so that a summary can name what is missing."""
    asked = Asked(
        cohorts=list(cfg.cohorts),
        runs=list(cfg.runs),
        models={
            name: AskedModel(
                model.label, model.sizes, model.run if model.source == "run" else None
            )
            for name, model in models.items()
        },
        poolings=list(cfg.evaluation.poolings),
        tasks=list(tasks),
        tracking_uri=cfg.mlflow.tracking_uri,
    )
    write_asked(layout.asked(), asked)


def print_summary(succeeded):
    """A summary that can't be made is no reason to end otherwise than the run did."""
    try:
        logger.info(f"\n{summary(cfg.results_dir, succeeded)}\n")
    except MidnightError as error:
        logger.warning(f"no summary: {error}")
