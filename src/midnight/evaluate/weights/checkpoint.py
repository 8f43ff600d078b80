"""A checkpoint of a run as a trained model's folder."""

from pathlib import Path

from safetensors import SafetensorError

from midnight.errors import MidnightError

TEACHER = "teacher.backbone.vit."


def export_checkpoint(checkpoint: Path, output: Path) -> None:
    """Write a checkpoint's teacher as a trained model's folder.

    Raises:
        MidnightError: the folder is no checkpoint of a run of this project.
    """
    from midnight.ssl.backbone import build_vit
    from midnight.ssl.export import export_teacher
    from midnight.ssl.job import FILE, read_job
    from midnight.ssl.shards import Shards

    job = read_job(checkpoint.resolve().parents[1] / FILE)
    vit = build_vit(job.recipe.backbone, job.recipe.crops.global_size)
    try:
        tensors = Shards(sorted(checkpoint.glob("shard-*.safetensors")))
        names = [name for name in tensors if name.startswith(TEACHER)]
        vit.load_state_dict({name.removeprefix(TEACHER): tensors[name] for name in names})
        step = int(checkpoint.name.removeprefix("step_"))
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise MidnightError(f"{checkpoint}: no usable checkpoint: {' '.join(str(error).split())[:200]}") from error
    export_teacher(vit, job.recipe, output, step, job.data)
