"""`midnight embed`, and the workflow's shards."""

import logging
from collections.abc import Iterable
from pathlib import Path

from midnight.config import Evaluation, Features, Tissue, check_features
from midnight.errors import ConfigError
from midnight.evaluate.encoder import load_encoder, pick_device, pick_precision
from midnight.evaluate.entries import Model
from midnight.evaluate.registry import OWN, find_model, load_models, models_file
from midnight.mil.cohort import check_complete, embed_slides
from midnight.mil.job import FeatureJob, indexed_items, local_items
from midnight.mil.ledger import NAME, OK, Row, read_table, summary, write_table
from midnight.tissue.index import read_index

log = logging.getLogger(__name__)


def embed_command(
    weights: str, slides: str, output: Path, features: Features, tissue: Tissue, evaluation: Evaluation, force: bool
) -> str:
    """Embed the slides of a folder, a CSV or one file.

    Args:
        weights: see `find_weights`.
        slides: see `midnight.slides.local.find_slides`.
        output: folder to write: h5_files/{slide_id}.h5 and slides.tsv.
        features: how tiles are cut, and what is kept of the model's tokens.
        tissue: how tissue is found.
        evaluation: batch size, reading threads, accelerator.
        force: replace files of other settings or of other programs.

    Returns:
        What was done, in a line.

    Raises:
        MidnightError: the model, the slides or the folder can't be used, or features of a slide are missing.
    """
    check_features(features)
    items, refused = local_items(slides, tissue)
    job = make_job(find_weights(weights, features.size), None, features, tissue, evaluation)
    table = output / NAME
    rows = embed_slides(items, refused, job, output, table, force)
    line = f"{output}: {summary(rows)}"
    print(line, flush=True)
    check_complete(rows, table)
    return line


def find_weights(weights: str, size: int) -> Model:
    """Weights in any form that `midnight.evaluate.weights` reads, or an entry of config/models.yaml.

    Raises:
        ConfigError: it is neither, or an entry whose weights the workflow makes.
    """
    path = Path(weights).expanduser()
    if path.exists():
        return Model("weights", path.name, [size], path=str(path.resolve()), name=path.resolve().name)
    if weights not in load_models():
        raise ConfigError(f"{weights}: neither weights nor an entry of {models_file()}")
    model = find_model(weights)
    if model.source in OWN:
        raise ConfigError(f"{weights}: is made by the workflow; give its folder, such as results/models/{weights}")
    return model


def make_job(
    model: Model, model_dir: Path | None, features: Features, tissue: Tissue, evaluation: Evaluation
) -> FeatureJob:
    """Load a model onto its device.

    Args:
        model: which one.
        model_dir: exported folder of a model trained here, else None.
        features: how tiles are cut, and what is kept of the model's tokens.
        tissue: how tissue is found.
        evaluation: batch size, reading threads, accelerator.

    Raises:
        MidnightError: it can't be loaded, or does not take tiles of this size.
    """
    device = pick_device(evaluation.accelerator)
    encoder = load_encoder(model, model_dir, features.size)
    encoder.tokens.to(device)
    precision = pick_precision(device, "tile")
    return FeatureJob(encoder, model.name, precision, features, tissue, evaluation.batch_size, evaluation.workers)


def embed_shard(index: Path, job: FeatureJob, table: Path) -> None:
    """Embed the slides of a shard of a cohort; those that can't be used are rows of its table.

    Files of other settings are made anew: in the workflow, they are the configuration's to change.

    Args:
        index: the shard's tissue.
        job: how they are embedded.
        table: to write; the slides' files go beside it.

    Raises:
        MidnightError: none of the slides that have tissue could be embedded.
    """
    rows = embed_slides(indexed_items(index), [], job, table.parent, table, force=True)
    for row in rows:
        if row.status != OK:
            log.warning("slide %s has no features: %s", row.slide_id, row.reason)
    if any(record.ok for record in read_index(index)) and not any(row.status == OK for row in rows):
        check_complete(rows, table)


def join_tables(tables: Iterable[Path], output: Path) -> list[Row]:
    """One table of all shards, sorted by slide_id.

    Raises:
        MidnightError: a table can't be read.
    """
    rows = sorted((row for table in tables for row in read_table(table)), key=lambda row: row.slide_id)
    write_table(output, rows)
    return rows
