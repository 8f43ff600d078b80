from pathlib import Path

from midnight.logs import redirect

with redirect(snakemake.log[0]):
    from midnight.config import load_config
    from midnight.evaluate.prepare.task import prepare_task

    prepare_task(
        name=snakemake.wildcards.task,
        evaluation=load_config(snakemake.config, "config").evaluation,
        output=Path(snakemake.output[0]),
    )
