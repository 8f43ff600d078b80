"""A training run's arguments as a file, so that any number of processes can be started with it."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from midnight.atomic import write_json
from midnight.config import Mlflow, Recipe, build, plain
from midnight.errors import MidnightError

FILE = "job.json"


@dataclass(frozen=True)
class Job:
    """A training run.

    Attributes:
        recipe: everything that it depends on besides the slides.
        cohorts: index of slides and share of the tiles, by name.
        output: the run's folder.
        init_from: folder of the run that `backbone.init: run:NAME` names.
        mlflow: tracking server.
        tracking_dir: for the local sqlite file, where no server is named.
        data: `real` or `demo`, kept in model.json.
        drawn: index of the tiles drawn beforehand, for a recipe with `tiles.predrawn`.
        manifests: manifest by cohort, for the labels of the probe; may lack some or all.
    """

    recipe: Recipe
    cohorts: dict[str, tuple[Path, float]]
    output: Path
    init_from: Path | None
    mlflow: Mlflow
    tracking_dir: Path
    data: str
    drawn: Path | None = None
    manifests: dict[str, Path] = field(default_factory=dict)


def write_job(path: Path, job: Job) -> None:
    """Write a job as JSON, atomically.

    Raises:
        MidnightError: the disk is full or the folder can't be written.
    """
    write_json(
        path,
        {
            "recipe": plain(job.recipe),
            "cohorts": {name: [str(index), share] for name, (index, share) in job.cohorts.items()},
            "output": str(job.output),
            "init_from": str(job.init_from) if job.init_from else None,
            "mlflow": plain(job.mlflow),
            "tracking_dir": str(job.tracking_dir),
            "data": job.data,
            "drawn": str(job.drawn) if job.drawn else None,
            "manifests": {name: str(path) for name, path in job.manifests.items()},
        },
    )


def read_job(path: Path) -> Job:
    """Read what `write_job` wrote.

    Raises:
        MidnightError: the file can't be read or is no job.
        ConfigError: a key of the recipe is wrong.
    """
    try:
        raw = json.loads(Path(path).read_text(encoding="utf-8"))
        return Job(
            recipe=build(Recipe, raw["recipe"], f"{path}: recipe"),
            cohorts={name: (Path(index), float(share)) for name, (index, share) in raw["cohorts"].items()},
            output=Path(raw["output"]),
            init_from=Path(raw["init_from"]) if raw["init_from"] else None,
            mlflow=build(Mlflow, raw["mlflow"], f"{path}: mlflow"),
            tracking_dir=Path(raw["tracking_dir"]),
            data=str(raw["data"]),
            drawn=Path(raw["drawn"]) if raw["drawn"] else None,
            manifests={name: Path(path) for name, path in raw["manifests"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        raise MidnightError(
            f"{path}: no training job: {' '.join(str(reason).split())}; run the workflow again"
        ) from error
