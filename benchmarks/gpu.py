"""What a GPU makes of the training step: is it right, and how fast. Runs where little more than torch is installed.

    PYTHONPATH=src python benchmarks/gpu.py [--stages NAME,…] [--log FILE.jsonl] [--quick] [--out FILE.md]

Needs torch, timm, safetensors, PyYAML and jsonschema; no network, no OpenSlide, no eva. Every result is printed and
appended to the log at once, and a stage that fails says why and lets the others run. See benchmarks/README.md.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from gpu_support import attention, steps, training
from gpu_support.steps import Model, Way
from tiles_support.page import add_out, check_out, deliver, table

from midnight.config import Backbone
from midnight.ssl import bench
from midnight.ssl.model.backbone import MaskedViT, build_vit

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda", 0) if GPU else torch.device("cpu")
REPOSITORY = Path(__file__).resolve().parents[1]
GIANT, BASE = "vit_giant_patch14_reg4_dinov2", "vit_base_patch14_reg4_dinov2"
Rows = Iterator[dict[str, Any]]


def environment(small: bool) -> Rows:
    """Versions, and the two limits: matrix products of a step's sizes, and copies."""
    import timm

    row: dict[str, Any] = {"torch": torch.__version__, "timm": timm.__version__, "cores": os.cpu_count()}
    if GPU:
        row |= {"gpu": torch.cuda.get_device_name(), "capability": torch.cuda.get_device_capability()}
        row["gb"] = round(torch.cuda.get_device_properties(0).total_memory / 1e9)
    yield row
    sizes = (
        (27_297, 1536, 8192),
        (27_297, 4096, 1536),
        (27_297, 1536, 4608),
        (1536, 27_297, 8192),
        (25_056, 1536, 8192),
    )
    for m, k, n in ((64, 64, 64),) if small else sizes:
        a, b = (torch.randn(*shape, device=DEVICE, dtype=torch.bfloat16) for shape in ((m, k), (k, n)))
        seconds = _seconds(lambda a=a, b=b: a @ b)
        yield {"product": f"{m} × {k} × {n}", "tflops": round(2 * m * k * n / seconds / 1e12)}
    source = torch.empty(2**16 if small else 2**32, device=DEVICE, dtype=torch.uint8)
    target = torch.empty_like(source)
    yield {"copy_tb_s": round(2 * source.numel() / _seconds(lambda: target.copy_(source)) / 1e12, 2)}


def _seconds(call: Callable[[], Any], repetitions: int = 20) -> float:
    for _ in range(3):
        call()
    bench.synchronise(DEVICE)
    start = time.perf_counter()
    for _ in range(repetitions):
        call()
    bench.synchronise(DEVICE)
    return (time.perf_counter() - start) / repetitions


def kernels(small: bool) -> Rows:
    """Each Triton kernel, and fused blocks, against plain torch: the tests that need nothing else."""
    tests = ["tests/ssl/kernels", "tests/ssl/model/test_fused.py", "tests/ssl/test_update.py"]
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=170)
    lines = done.stdout.strip().splitlines()
    failed = [line[:300] for line in lines if line.startswith(("FAILED", "ERROR", "E  "))]
    yield {"exit": done.returncode, "last": lines[-1] if lines else done.stderr[-300:], "failed": failed[:12]}


def right(small: bool) -> Rows:
    """Losses and gradients of one micro-step in each way, beside those in float32 by plain blocks.

    Those are the CPU's, but with stochastic depth, whose draws differ there, the device's own.
    """
    for arch in (GIANT, "vit_small_patch14_dinov2"):
        for rate in (0.0, 0.4):
            model = Model(arch, 4, rate, small=True)
            plain = Way("plain", precision="float32", targets="dense")
            expected = _found(model, plain, DEVICE if rate else torch.device("cpu"))
            for way in _ways() if arch == GIANT else [Way("plain", precision="float32"), Way()]:
                try:
                    ours = _found(model, way, DEVICE)
                    yield {"arch": arch, "drop_path": rate, "way": str(way), **steps.differences(ours, expected)}
                except Exception as error:
                    traceback.print_exc()
                    yield {"arch": arch, "drop_path": rate, "way": str(way), "error": repr(error)[:300]}


def _ways() -> list[Way]:
    ways = [Way("plain", precision="float32"), Way("plain", precision="float32", targets="dense")]
    if GPU:
        ways += [
            Way(),
            Way(checkpointing=True),
            Way("plain"),
            Way("plain", checkpointing=True),
            Way("plain", precision="float8"),
        ]
    return ways


def _found(model: Model, way: Way, device: torch.device) -> dict[str, float]:
    with steps.stepper(model, way, device, init_on=torch.device("cpu")) as stepping:
        losses = stepping.losses()
        values = {"total": losses.total, "dino": losses.dino, "ibot": losses.ibot, "regularizer": losses.regularizer}
        return {name: float(value.detach()) for name, value in values.items()} | {
            "gradients": steps.gradients_norm(stepping.student)
        }


def attending(small: bool) -> Rows:
    """Ours and torch's kernels, forward and backward, of one block of a ViT-g at batch 48."""
    yield from attention.compared(DEVICE, small)


def tuning(small: bool) -> Rows:
    """The kernels' launch parameters."""
    yield from attention.tuned(DEVICE, small)


def speed(small: bool) -> Rows:
    """Steps of a ViT-g at batch 48 and 12, and of a ViT-B at batch 64."""
    before = Way("plain", targets="dense", update="torch")
    cases = [
        (Model(), Way()),
        (Model(), before),
        (Model(batch=12), Way()),
        (Model(batch=12), before),
        (Model(BASE, 64), Way()),
        (Model(BASE, 64), before),
    ]
    yield from _speeds(cases, small)


def further(small: bool) -> Rows:
    """The same in other ways: checkpointing, compiled, float8."""
    cases = [
        (Model(), Way(checkpointing=True)),
        (Model(), Way("plain")),
        (Model(), Way("plain", precision="float8")),
        (Model(batch=12), Way("compiled")),
    ]
    yield from _speeds(cases, small)


def _speeds(cases: list[tuple[Model, Way]], small: bool) -> Rows:
    for model, way in cases:
        tried = Model(model.arch, 2, model.drop_path, small=True) if small else model
        row: dict[str, Any] = {"arch": model.arch, "batch": model.batch, "way": str(way)}
        try:
            row |= steps.measured(tried, way, DEVICE, 2 if small else 10)
            row["utilisation"] = bench.utilisation(row["tflops"], way.precision, DEVICE)
        except Exception as error:
            traceback.print_exc()
            row["error"] = repr(error)[:300]
        yield row


@torch.no_grad()
def embedding(small: bool) -> Rows:
    """Images per second of a backbone without gradients, in bfloat16, by plain and by fused blocks."""
    for arch in (GIANT, BASE):
        backbone = Backbone(arch=arch, kwargs=steps.SMALL if small else {}, layer_scale=1.0)
        with DEVICE:
            model = MaskedViT(build_vit(backbone, 224)).eval()
            images = torch.randn(2 if small else 256, 3, 224, 224)
        for fused in (False, True):
            if fused:
                model.fuse_blocks()
            with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
                seconds = _seconds(lambda model=model, images=images: model(images), 1 if small else 5)
            yield {"arch": arch, "fused": fused, "images_per_s": round(len(images) / seconds, 1)}


def profile(small: bool) -> Rows:
    """Where a ViT-g's step spends its time on the GPU, and a ViT-B's on the CPU, by kernel and by operation."""
    for model, of_cpu in ((Model(), False), (Model(BASE, 64), True)):
        with steps.stepper(Model(model.arch, 2, small=True) if small else model, Way(), DEVICE) as stepping:
            for _ in range(bench.WARM):
                stepping.step()
            for row in bench.longest(stepping.step, DEVICE, 45, of_cpu):
                yield {"arch": model.arch, **row}


def waits(small: bool) -> Rows:
    """Where a step waits for the GPU: once, for the gradients' norm, is all that it should."""
    if not GPU:
        return
    with steps.stepper(Model(BASE, 8), Way(), DEVICE) as stepping:
        for _ in range(2):
            stepping.step()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as found:
                warnings.simplefilter("always")
                stepping.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    for warning in found:
        yield {"at": f"{warning.filename}:{warning.lineno}", "what": str(warning.message)[:100]}


def run(small: bool) -> Rows:
    """The trainer: to the end, and stopped and gone on with."""
    with tempfile.TemporaryDirectory() as folder:
        yield from training.run(Path(folder), small)


STAGES: dict[str, Callable[[bool], Rows]] = {
    "environment": environment,
    "kernels": kernels,
    "right": right,
    "attention": attending,
    "tuning": tuning,
    "speed": speed,
    "embedding": embedding,
    "profile": profile,
    "waits": waits,
    "run": run,
    "further": further,
}


def measured(names: list[str], small: bool, log: Path) -> list[dict[str, Any]]:
    """The rows of these stages, each printed and appended to `log` as soon as it is there."""
    rows = []
    for name in names:
        start = time.perf_counter()
        try:
            for row in _guarded(STAGES[name], small):
                rows.append(_told({"stage": name, **row}, log))
        finally:
            rows.append(_told({"stage": name, "seconds": round(time.perf_counter() - start, 1)}, log))
    return rows


def _guarded(stage: Callable[[bool], Rows], small: bool) -> Rows:
    try:
        yield from stage(small)
    except Exception as error:
        traceback.print_exc()
        yield {"error": f"{type(error).__name__}: {error}"[:400]}


def _told(row: dict[str, Any], log: Path) -> dict[str, Any]:
    line = json.dumps(row, ensure_ascii=False)
    print(line, flush=True)
    with log.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    return row


def pages(rows: list[dict[str, Any]]) -> dict[str, str]:
    """The rows as one table per stage and kind of row."""
    kinds: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        shown = {name: value for name, value in row.items() if name != "stage"}
        kinds.setdefault((row["stage"], *shown), []).append(shown)
    parts: dict[str, str] = {}
    for (stage, *_), found in kinds.items():
        parts[stage] = "\n\n".join(filter(None, [parts.get(stage, ""), table(found)]))
    return parts


def main(arguments: list[str] | None = None) -> int:
    """Run the stages; the exit status is 1 if any failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", default=",".join(STAGES), help="which, in this order (default: %(default)s)")
    parser.add_argument("--log", type=Path, metavar="FILE.jsonl", help="where rows are appended (default: a new file)")
    parser.add_argument("--quick", action="store_true", help="tiny models: whether it runs, not how fast")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    add_out(parser)
    options = parser.parse_args(arguments)
    check_out(options)
    names = options.stages.split(",")
    unknown = [name for name in names if name not in STAGES]
    if unknown:
        parser.error(f"no such stage: {', '.join(unknown)}; there are {', '.join(STAGES)}")
    log = options.log or Path(tempfile.mkdtemp(prefix="midnight-gpu-"), "gpu.jsonl")
    log.parent.mkdir(parents=True, exist_ok=True)
    rows = measured(names, options.quick or not GPU, log)
    failed = sum("error" in row for row in rows)
    line = f"{len(rows)} rows, {failed} failed, in {log}"
    deliver("The training step on a GPU", line, pages(rows), {"rows": rows}, options.out, options.json)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
