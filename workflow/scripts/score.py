from pathlib import Path

from midnight.logs import redirect

with redirect(snakemake.log[0]):
    from midnight.config import load_config
    from midnight.evaluate.score import score_tasks

    config = load_config(snakemake.config, "config")
    outputs = [Path(output) for output in snakemake.output]
    embeddings = [Path(index).parent for index in snakemake.input.embeddings]
    score_tasks(
        model=snakemake.wildcards.model,
        model_dir=Path(snakemake.input.model[0]).parent if snakemake.input.model else None,
        size=int(snakemake.wildcards.size),
        tasks=list(snakemake.params.tasks),
        poolings=list(dict.fromkeys(output.parent.name for output in outputs)),
        evaluation=config.evaluation,
        embeddings={folder.name: folder for folder in embeddings},
        outputs={(output.parent.name, output.stem): output for output in outputs},
        data=snakemake.params.data,
        seed=snakemake.params.seed,
        threads=snakemake.threads,
    )
