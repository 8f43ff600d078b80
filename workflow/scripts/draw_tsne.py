from pathlib import Path

from midnight.logs import redirect

with redirect(snakemake.log[0]):
    from midnight.report.figures import draw_tsne, read_embeddings

    folders = [Path(index).parent for index in snakemake.input]
    embeddings = {
        label: read_embeddings(folder) for label, folder in zip(snakemake.params.labels, folders, strict=True)
    }
    draw_tsne(embeddings, Path(snakemake.output[0]), snakemake.wildcards.task, snakemake.params.seed)
