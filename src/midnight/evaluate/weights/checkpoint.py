"""A checkpoint of a run as a trained model's folder."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from midnight.errors import MidnightError
from midnight.evaluate.weights.places import is_checkpoint

TEACHER = "teacher.backbone.vit."


def export_checkpoint(checkpoint: Path, output: Path) -> None:
    """Write a checkpoint's teacher, with its heads and mask token, as a trained model's folder.

    Raises:
        MidnightError: the folder is no checkpoint of a run of this project.
    """
    from midnight.config import read_yaml
    from midnight.ssl.checkpoint.pieces import PieceFiles
    from midnight.ssl.checkpoint.run_key import SEGMENTS
    from midnight.ssl.exports.model_folder import HEADS, export_teacher, of_heads, save_weights
    from midnight.ssl.launch.job import FILE, read_job
    from midnight.ssl.model.backbone import build_vit

    job_folder = checkpoint.resolve().parents[1]
    job = read_job(job_folder / FILE)
    vit = build_vit(job.recipe.backbone, job.recipe.crops.global_size)
    try:
        tensors = PieceFiles(sorted(checkpoint.glob("shard-*.safetensors")))
        names = [name for name in tensors if name.startswith(TEACHER)]
        vit.load_state_dict({name.removeprefix(TEACHER): tensors[name] for name in names})
        heads = of_heads(tensors, "teacher.")
        step = int(checkpoint.name.removeprefix("step_"))
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise MidnightError(f"{checkpoint}: no usable checkpoint: {' '.join(str(error).split())[:200]}") from error
    config = job_folder / "config.yaml"
    segments = read_yaml(config).get(SEGMENTS, []) if config.is_file() else []
    export_teacher(vit, job.recipe, output, step, job.data, segments=[one for one in segments if one["until"] < step])
    save_weights(output / HEADS, heads)


@contextlib.contextmanager
def as_run(folder: Path, target: str) -> Iterator[Path]:
    """A run's folder as it is; of one of its checkpoints a folder of the same kind, for as long as the block lasts.

    Raises:
        MidnightError: the checkpoint is none, or the files of `target` would name weights that are gone afterwards.
    """
    if not is_checkpoint(folder):
        yield folder
        return
    if target == "eva":
        raise MidnightError(f"{folder}: eva's files name their weights by path; export the checkpoint --to timm first")
    checkpoint = folder.resolve()
    run = checkpoint.parents[1]
    with tempfile.TemporaryDirectory(prefix="midnight-checkpoint-") as scratch:
        output = Path(scratch, f"{run.name}-{checkpoint.name}")
        export_checkpoint(checkpoint, output)
        if (run / "config.yaml").is_file():
            shutil.copyfile(run / "config.yaml", output / "config.yaml")
        yield output
