from pathlib import Path

from midnight.logs import redirect
from midnight.ssl.launch.signals import stop_on_signals

# Signals are answered from here on, before all that takes long.
with redirect(snakemake.log[0]), stop_on_signals():
    from midnight.config import load_config, load_recipe
    from midnight.ssl.launch.attempts import attempted
    from midnight.ssl.launch.entry import start
    from midnight.ssl.launch.job import FILE, Job, write_job

    config = load_config(snakemake.config, "config")
    run = config.runs[snakemake.wildcards.run]
    indices = dict(zip(run.cohorts, snakemake.input.indices, strict=True))
    indices |= dict(zip(run.tile_folders, snakemake.input.tile_lists, strict=True))
    shares = snakemake.params.cohorts
    parent, drawn = snakemake.input.get("parent"), snakemake.input.get("tiles")
    output = Path(snakemake.output.weights).parent
    job = Job(
        recipe=load_recipe(run.recipe, run.override),
        cohorts={name: (Path(index), shares[name]) for name, index in indices.items()},
        output=output,
        init_from=Path(parent[0]).parent if parent else None,
        mlflow=config.mlflow,
        tracking_dir=Path(config.results_dir),
        data=snakemake.params.data,
        drawn=Path(drawn[0]) if drawn else None,
        manifests=dict(zip(run.cohorts, map(Path, snakemake.input.manifests), strict=True)),
    )
    write_job(output / FILE, job)
    with attempted(output):
        start(output / FILE)
