from pathlib import Path

from midnight.logs import redirect

with redirect(snakemake.log[0]):
    from midnight.config import load_config
    from midnight.evaluate.embed import embed

    folders = [Path(index).parent for index in snakemake.output]
    embed(
        model=snakemake.wildcards.model,
        model_dir=Path(snakemake.input.model[0]).parent if snakemake.input.model else None,
        size=int(snakemake.wildcards.size),
        tasks=list(snakemake.params.tasks),
        evaluation=load_config(snakemake.config, "config").evaluation,
        output_dirs={folder.name: folder for folder in folders},
    )
