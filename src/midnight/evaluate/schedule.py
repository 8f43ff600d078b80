"""How long a head's fit is, and whether it is validated at all. Light: the workflow imports it at its start."""

from collections.abc import Iterable

from midnight.evaluate.entries import Task


def fit_epochs(task: Task, samples: int | None) -> int | None:
    """Epochs of a fit under the task's protocol; None where it depends on `samples`, and these are not known."""
    values = task.values
    if values.max_epochs:
        return values.max_epochs
    drawn = samples if values.shots is None else values.shots * max(2, task.classes)
    return None if drawn is None else (values.max_steps or 0) // -(-drawn // values.batch_size)


def never_validated(task: Task, samples: int | None = None) -> str:
    """Why a fit would have no best checkpoint, in a line; "" if it has, or if that is not known yet."""
    epochs, every = fit_epochs(task, samples), task.values.validate_every
    if epochs is None or epochs >= every:
        return ""
    where = f"tasks.{task.name}.protocols.{task.protocol}.validate_every"
    return f"{where}: {every}, but the fit ends after {epochs} epochs, never validated"


def protocol_problems(tasks: Iterable[Task]) -> list[str]:
    """A line for each task whose fits are never validated; those of folders set their own pace."""
    fitted = (task for task in tasks if task.kind not in ("hest", "folder"))
    return [line for task in fitted if (line := never_validated(task))]
