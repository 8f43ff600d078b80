"""Scores of one model at one size: every cell of tasks × poolings, computed once per change of what it depends on."""

import dataclasses
import functools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from midnight.config import Evaluation, choose, plain
from midnight.config.pipeline import is_generated
from midnight.errors import ConfigError, MidnightError
from midnight.evaluate import quiet
from midnight.evaluate.division import describe, scored_split
from midnight.evaluate.encoder import Encoder, load_encoder, pick_device
from midnight.evaluate.encoder import model_hash as hash_model
from midnight.evaluate.entries import Model, Task
from midnight.evaluate.fingerprint import hash_data
from midnight.evaluate.hest import score_fold
from midnight.evaluate.hest_data import Fold, read_barcodes, read_counts, read_folds, read_genes
from midnight.evaluate.images import task_root
from midnight.evaluate.records import RELEVANT, Record, read_record, summarise, write_record
from midnight.evaluate.registry import find_model, select_tasks
from midnight.evaluate.store import Embeddings, read_embeddings
from midnight.evaluate.workers import Call, run_calls
from midnight.hashing import hash_value
from midnight.provenance import processor_versions, provenance, versions

LOG = logging.getLogger(__name__)
REVISION = 4
"""Raised when a change of this package changes scores: cached cells of another revision are not used."""


@dataclass
class Job:
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


def score_tasks(
    model: str,
    model_dir: Path | None,
    size: int,
    tasks: list[str],
    poolings: list[str],
    evaluation: Evaluation,
    embeddings: dict[str, Path],
    outputs: dict[tuple[str, str], Path],
    data: str,
    seed: int,
    cache_dir: Path | None = None,
    threads: int = 1,
) -> None:
    """Write one score record per (pooling, task).

    Args:
        model: entry of `evaluation.weights` or of config/models.yaml.
        model_dir: exported folder of a model trained here, else None.
        size: input size, px.
        tasks: entries of config/tasks.yaml.
        poolings: "cls", "cls_mean".
        evaluation: protocol, data root, accelerator.
        embeddings: task: folder that `embed` wrote (no segmentation tasks).
        outputs: (pooling, task): the record's path.
        data: "real" or "demo", goes into the records.
        seed: of heads, batches, drawn tiles and halves.
        cache_dir: finished cells; by default `cache/scores` beside `scores`.
        threads: of the CPU; with two or more, cells are computed side by side. Scores are the same, but for decoders
            on the CPU, where another number of threads rounds otherwise.

    Raises:
        MidnightError: data, embeddings or model are missing or wrong, or a score is not a finite number.
    """
    chosen = {
        name: task
        for name, task in select_tasks(tasks, evaluation.protocol, folders=evaluation.folders).items()
        if name in tasks
    }
    stray = [name for name, task in chosen.items() if is_generated(task.data) and not is_generated(data)]
    if stray:
        raise ConfigError(f"evaluation.tasks: {stray[0]} is generated data; set `data: demo` in the configuration")
    job = Job(find_model(model, evaluation.weights), model_dir, size, evaluation, data, seed)
    cache = cache_dir or default_cache(next(iter(outputs.values())))
    cells = [(task, group) for task in chosen.values() for group in group_poolings(task, poolings)]
    with tqdm(total=len(cells), desc=f"score {model} at {size} px", unit="cell") as bar:
        here, forked, processes = share_cells(job, cells, embeddings, cache, threads)
        if processes:
            import eva.core.interface  # noqa: F401 (once, before the forks, instead of in each of them)
        with quiet.threads(max(1, threads - processes)):
            for record in chain.from_iterable(run_calls(here, forked, processes, bar.update)):
                write_record(outputs[record.pooling, record.task], record)


def share_cells(
    job: Job, cells: list[tuple[Task, tuple[str, ...]]], embeddings: dict[str, Path], cache: Path, threads: int
) -> tuple[list[Call], list[Call], int]:
    """Cells for this process, cells for forked ones and how many of these, for `run_calls`.

    Heads and probes are fitted on the CPU by one thread each, since they are too small for more: with several threads
    in forked processes. What needs the encoder or a GPU stays in this process, with the threads that are left.
    """
    gpu = pick_device(job.evaluation.accelerator).type == "cuda"
    stays = {"segmentation", "slide"} if gpu else {"segmentation"}
    small = dataclasses.replace(job, evaluation=dataclasses.replace(job.evaluation, accelerator="cpu"))
    here: list[Call] = []
    forked: list[Call] = []
    for task, poolings in cells:
        calls = here if threads == 1 or task.kind in stays else forked
        owner = job if task.kind in stays else small
        calls.append(functools.partial(score_cell, owner, task, poolings, embeddings, cache))
    return here, forked, min(len(forked), threads - bool(here))


def group_poolings(task: Task, poolings: list[str]) -> list[tuple[str, ...]]:
    """Poolings that share one computation: all of them for segmentation, which doesn't pool."""
    return [tuple(poolings)] if task.kind == "segmentation" else [(pooling,) for pooling in poolings]


def default_cache(output: Path) -> Path:
    """`{results}/cache/scores` for `{results}/scores/{model}/{size}/{pooling}/{task}.json`."""
    results = output.parents[4] if len(output.parents) > 4 and output.parents[3].name == "scores" else output.parent
    return results / "cache" / "scores"


def score_cell(
    job: Job, task: Task, poolings: tuple[str, ...], embeddings: dict[str, Path], cache: Path
) -> list[Record]:
    """Records of one task, one per pooling, from the cache where nothing that matters has changed.

    Raises:
        MidnightError: see `score_tasks`.
    """
    root = task_root(task, job.evaluation.data_root)
    stored, base = read_stored(task, embeddings) if task.kind != "segmentation" else (None, None)
    cell = describe_cell(job, task, poolings, root, stored)
    record = find_cached(cache / f"{cell.key}.json")
    if record is None:
        if stored is not None and base is not None:
            from midnight.evaluate.perturb import join_base

            stored = join_base(task, stored, base)
        record = compute(job, cell, root, stored)
        write_record(cache / f"{cell.key}.json", record)
    # What a person may rename without a change of the number.
    shown: dict[str, Any] = {"model": job.model.name, "label": job.model.label, "published": job.model.published}
    return [dataclasses.replace(record, pooling=pooling, column=task.column, **shown) for pooling in poolings]


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


def describe_cell(job: Job, task: Task, poolings: tuple[str, ...], root: Path, stored: Embeddings | None) -> Cell:
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


def find_cached(path: Path) -> Record | None:
    """A finished cell, or None; a damaged one counts as none."""
    if not path.is_file():
        return None
    try:
        return read_record(path)
    except MidnightError as error:
        LOG.warning("%s; computed again", error)
        return None


def compute(job: Job, cell: Cell, root: Path, stored: Embeddings | None) -> Record:
    """Fit and score one cell."""
    started = time.perf_counter()
    values, extra = run_task(job, cell, root, stored)
    task = cell.task
    configuration = {"task": plain(task), "size": job.size, "seed": job.seed, "poolings": list(cell.poolings)}
    summary: dict[str, Any] = summarise(values, folds=task.kind == "hest")
    return Record(
        model=job.model.name,
        label=job.model.label,
        size=job.size,
        pooling=cell.poolings[0],
        task=task.name,
        column=task.column,
        metric=task.metric,
        values=values,
        protocol=task.protocol,
        data=job.data,
        versions=versions() | processor_versions(),
        config_hash=hash_value(configuration),
        data_hash=cell.data_hash,
        model_hash=cell.model_hash,
        seconds=round(time.perf_counter() - started, 3),
        provenance=provenance(configuration),
        kind=task.kind,
        split=scored_split(task, stored) if stored is not None else task.scored,
        seed=job.seed,
        extra=extra,
        **summary,
    )


Scored = tuple[list[float], dict[str, Any]]
"""Values per run or fold, and what else the record should hold."""


def run_task(job: Job, cell: Cell, root: Path, stored: Embeddings | None) -> Scored:
    """Fit and score by the code for the task's kind; `stored` is None where there are no embeddings."""
    return choose(cell.task.kind, RUNNERS, f"tasks.{cell.task.name}.kind")(job, cell, root, stored)


def _segmentation(job: Job, cell: Cell, root: Path, _: Embeddings | None) -> Scored:
    from midnight.evaluate.segment import fit_segmentation

    values = fit_segmentation(cell.task, job.load(), root, job.size, job.evaluation.accelerator, job.seed)
    return values, {"pooling_independent": True}


def _hest(job: Job, cell: Cell, root: Path, stored: Embeddings | None) -> Scored:
    assert stored is not None  # noqa: S101 (only segmentation has none)
    return score_hest(root, stored, cell.poolings[0])


def _heads(job: Job, cell: Cell, root: Path, stored: Embeddings | None) -> Scored:
    from midnight.evaluate.heads import fit_heads

    assert stored is not None  # noqa: S101 (only segmentation has none)
    task = cell.task
    extra: dict[str, Any] = {}
    if task.perturb:
        extra = {"variant_of": task.variant_of, "perturbation": task.perturb.text}
    elif task.kind == "folder":
        said = {"division": describe(stored), "left_out": stored.index.get("left_out", [])}
        extra = {name: value for name, value in said.items() if value}
    return fit_heads(task, stored, cell.poolings[0], job.evaluation.accelerator, job.seed), extra


RUNNERS: dict[str, Callable[[Job, Cell, Path, Embeddings | None], Scored]] = {
    "tile": _heads,
    "slide": _heads,
    "folder": _heads,
    "segmentation": _segmentation,
    "hest": _hest,
}


def score_hest(root: Path, stored: Embeddings, pooling: str) -> tuple[list[float], dict[str, Any]]:
    """Mean Pearson r of each fold of a HEST task, with r per gene and fold and the number of PCA components.

    Raises:
        MidnightError: folds, counts or embeddings are missing or don't fit each other.
    """
    samples, folds = read_folds(root)
    genes = read_genes(root)
    features = stored.pooled(pooling)
    x, y = {}, {}
    for name, sample in samples.items():
        barcodes = read_barcodes(sample)
        rows = stored.rows(name)
        if stored.samples["name"].to_numpy()[rows].tolist() != [f"{name}/{barcode}" for barcode in barcodes]:
            raise MidnightError(f"{sample.patches}: other spots than were embedded; run the embed rule again")
        x[name], y[name] = np.asarray(features[rows]), read_counts(sample, barcodes, genes)

    def join(values: dict[str, np.ndarray], names: tuple[str, ...]) -> np.ndarray:
        return np.concatenate([values[name] for name in names])

    def fit(fold: Fold) -> Any:
        return score_fold(join(x, fold.train), join(y, fold.train), join(x, fold.test), join(y, fold.test))

    with threadpool_limits(1):  # another number of threads rounds otherwise, which lsqr's early stop makes larger
        scores = [fit(fold) for fold in folds]
    per_gene = [[None if np.isnan(r) else float(r) for r in score.genes] for score in scores]
    extra = {"genes": genes, "per_gene": per_gene, "components": [score.components for score in scores]}
    return [score.mean for score in scores], extra
