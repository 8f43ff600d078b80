"""The cells of one model at one size: what the score of each depends on, and those that are finished."""

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path

from midnight.config import Evaluation, plain
from midnight.errors import MidnightError
from midnight.evaluate.encoder import Encoder, load_encoder, pick_device
from midnight.evaluate.encoder import model_hash as hash_model
from midnight.evaluate.entries import Model, Task
from midnight.evaluate.fingerprint import hash_data
from midnight.evaluate.records import RELEVANT, Record, read_record
from midnight.evaluate.store import Embeddings, read_embeddings
from midnight.hashing import hash_value
from midnight.provenance import versions

LOG = logging.getLogger(__name__)
REVISION = 4
"""Raised when a change of this package changes scores: cached cells of another revision are not used."""


@dataclass
class Scoring:
    """What the cells of one call share."""

    model: Model
    model_dir: Path | None
    size: int
    evaluation: Evaluation
    data: str
    seed: int
    encoder: Encoder | None = None

    def load(self) -> Encoder:
        """The encoder, loaded once."""
        if self.encoder is None:
            self.encoder = load_encoder(self.model, self.model_dir, self.size, self.evaluation.weights_dir)
            self.encoder.tokens.to(pick_device(self.evaluation.accelerator))
        return self.encoder


@dataclass(frozen=True)
class Cell:
    """One task and the poolings that it is scored for, with the hashes that its score depends on."""

    task: Task
    poolings: tuple[str, ...]
    data_hash: str
    model_hash: str
    key: str


def read_stored(task: Task, folders: dict[str, Path]) -> tuple[Embeddings, Embeddings | None]:
    """A task's embeddings and, for a variant, those of its base task, whose key is then in the former's index.

    Raises:
        MidnightError: they are not there.
    """
    missing = [name for name in (task.name, task.variant_of) if name and name not in folders]
    if missing:
        raise MidnightError(f"task {task.name}: no embeddings of {missing[0]} given; run the embed rule first")
    stored = read_embeddings(folders[task.name])
    if not task.variant_of:
        return stored, None
    base = read_embeddings(folders[task.variant_of])
    return dataclasses.replace(stored, index=stored.index | {"base": base.index["key"]}), base


def describe_cell(job: Scoring, task: Task, poolings: tuple[str, ...], root: Path, stored: Embeddings | None) -> Cell:
    """The cell with its key: changes when the model, data, task, protocol, seed or a relevant version does."""
    if stored is not None:
        data_hash, model_hash = stored.index["data_hash"], stored.index["model_hash"]
    else:
        data_hash, model_hash = hash_data(root), hash_model(job.model, job.model_dir) or job.load().hash
    shared = "all" if task.kind == "segmentation" else poolings[0]
    relevant = {name: versions().get(name) for name in RELEVANT}
    settings = plain(task) | {"label": "", "column": "", "source": "", "licence": ""}
    parts = [REVISION, settings, job.size, shared, data_hash, model_hash, job.seed, job.data, relevant]
    parts += [stored.index["precision"]] if stored is not None else []
    parts += [stored.index["base"]] if stored is not None and task.variant_of else []
    return Cell(task, poolings, data_hash, model_hash, hash_value(parts))


def default_cache(output: Path) -> Path:
    """`{results}/cache/scores` for `{results}/scores/{model}/{size}/{pooling}/{task}.json`."""
    results = output.parents[4] if len(output.parents) > 4 and output.parents[3].name == "scores" else output.parent
    return results / "cache" / "scores"


def find_cached(path: Path) -> Record | None:
    """A finished cell, or None; a damaged one counts as none."""
    if not path.is_file():
        return None
    try:
        return read_record(path)
    except MidnightError as error:
        LOG.warning("%s; computed again", error)
        return None
