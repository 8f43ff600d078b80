from pathlib import Path

from midnight.logs import redirect

with redirect(snakemake.log[0]):
    from midnight.report.labels import read_labels
    from midnight.report.scores import load_scores
    from midnight.report.table_forms import write_tables

    labels = read_labels(snakemake.params.tasks)
    write_tables(load_scores(snakemake.input), Path(snakemake.output[0]).parent, labels.reasons)
