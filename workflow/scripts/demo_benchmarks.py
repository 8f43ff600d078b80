from pathlib import Path

from midnight.logs import redirect

with redirect(snakemake.log[0]):
    from midnight.atomic import write_json
    from midnight.demo.benchmarks import write_benchmarks

    done = Path(snakemake.output.done)
    write_benchmarks(done.parent, snakemake.params.seed, snakemake.params.scale)
    write_json(done, {"seed": snakemake.params.seed, "scale": snakemake.params.scale, "data": "demo"})
