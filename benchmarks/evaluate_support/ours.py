"""One step of our side in a process of its own: what the rule `embed` or `score` runs.

    python -m evaluate_support.ours {embed,score} WORKSPACE OUTPUT THREADS

The last line is a JSON object: seconds for imports, for the encoder's forward passes and in all.
"""

import functools
import json
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from midnight.config import Evaluation
from midnight.logs import leave_at_once


def import_all() -> None:
    """Everything that the step would import on its way, so that imports can be told from work."""
    from eva.core.interface import Interface  # noqa: F401
    from eva.vision.data import datasets  # noqa: F401
    from eva.vision.models import modules  # noqa: F401

    from midnight.evaluate import embed, heads, score, segment  # noqa: F401


def time_encoder() -> list[float]:
    """Seconds of each forward pass from now on."""
    from midnight.evaluate.encoder import Tokens

    forward, seconds = Tokens.forward, []

    def timed(self: Tokens, images: Any) -> Any:
        start = time.perf_counter()
        tokens = forward(self, images)
        seconds.append(time.perf_counter() - start)
        return tokens

    Tokens.forward = timed  # type: ignore[method-assign]
    return seconds


def run(step: str, folder: Path, output: Path, threads: int) -> None:
    """The call of workflow/scripts/{embed,score}.py on the workspace's registry of tasks."""
    from midnight.evaluate import embed, registry, score

    from .workspace import MODEL, SEED

    effort = json.loads((folder / "effort.json").read_text(encoding="utf-8"))
    size, poolings = effort["size"], effort["poolings"]
    select = functools.partial(registry.select_tasks, path=folder / "tasks.yaml")
    embed.select_tasks = score.select_tasks = select  # type: ignore[assignment]
    tasks = select(list(effort["tasks"]), "demo")
    evaluation = Evaluation(protocol="demo", data_root=str(folder / "data"), accelerator="cpu", workers=threads)
    folders = {name: output / "embeddings" / name for name, task in tasks.items() if task.kind != "segmentation"}
    if step == "embed":
        embed.embed(MODEL, folder / "model", size, list(folders), evaluation, folders)
        return
    places = {(pooling, name): output / "scores" / pooling / f"{name}.json" for pooling in poolings for name in tasks}
    model = (MODEL, folder / "model", size)
    score.score_tasks(
        *model, list(tasks), poolings, evaluation, folders, places, "demo", SEED, output / "cache", threads
    )


def main() -> None:
    """See the module."""
    begun = psutil.Process().create_time()
    leave_at_once()
    step, folder, output, threads = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    import_all()
    imported, passes = time.time(), time_encoder()
    run(step, folder, output, threads)
    print(json.dumps({"imports": imported - begun, "encoder": sum(passes), "all": time.time() - begun}))


if __name__ == "__main__":
    main()
