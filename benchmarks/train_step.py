"""Images per second of a training step: ours beside a plain, straightforward implementation.

    python benchmarks/train_step.py [--quick] [--json] [--out FILE.md]

On the CPU a ViT-S/14, on a GPU ViT-B/14 and ViT-g/14 with registers, in interleaved repetitions; see
benchmarks/README.md.
"""

import argparse
import sys
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from tiles_support.page import add_out, check_out, deliver, hardware, table, versions
from train_step_support import measure
from train_step_support.sides import SIDES, Case, Side, parameters


@dataclass(frozen=True)
class Effort:
    """The models, and how long each is measured: repetitions of at least so many seconds."""

    cases: tuple[Case, ...]
    repetitions: int
    seconds: float


SMALL = Case("ViT-S/14", "vit_small_patch14_dinov2", 5, 0.3, 65_536)
TINY = Case("ViT-tiny/14", "vit_small_patch14_dinov2", 5, 0.3, 4096, {"embed_dim": 96, "depth": 4, "num_heads": 3}, 256)
BASE = Case("ViT-B/14", "vit_base_patch14_dinov2", 64, 0.4, 65_536, goals={"utilisation": 0.5})
GIANT = Case(
    "ViT-g/14 reg4", "vit_giant_patch14_reg4_dinov2", 12, 0.4, 131_072, goals={"images_per_s": 80, "utilisation": 0.45}
)
ON_CPU, ON_GPU = Effort((SMALL,), 5, 0.0), Effort((BASE, GIANT), 3, 10.0)
QUICK = Effort((TINY,), 3, 0.0)
RATIO_GOAL_ON_GPU = 2.0


def examine(case: Case, effort: Effort, device: torch.device, peak: float, memory: dict[str, Any]) -> dict[str, Any]:
    """Everything about one model; `peak` in TFLOP/s."""
    sides: dict[str, Side] = {}
    counted: dict[str, float] = {}
    operations: dict[str, Any] = {}
    for name, make in SIDES.items():
        sides[name] = make(case, device)
        with measure.turn(sides[name]) as side:
            counted[name] = measure.flops(side) / case.batch
            operations[name] = measure.top_operations(side)
            if device.type == "cuda":
                memory[name] = measure.memory_on_gpu(side)
    readings = measure.timed(sides, effort.repetitions, effort.seconds)
    found = measure.speeds(readings)
    for name, row in found.items():
        row["tflop_per_image"] = counted[name] / 1e12
        row["busy"] = round(row["images_per_s"] * counted[name] / 1e12 / peak, 3)
        row["utilisation"] = round(row["images_per_s"] * counted["ours"] / 1e12 / peak, 3)
    return {
        "parameters_in_millions": parameters(sides["ours"].student),
        "sides": found,
        "ratio": measure.paired_ratio(readings["ours"], readings["plain"]),
        "ratio_cpu": measure.paired_ratio(readings["ours"], readings["plain"], "cpu"),
        "ratio_of_arithmetic": round(counted["plain"] / counted["ours"], 3),
        "memory": memory,
        "operations": operations,
        "goals": {goal: {"goal": value, "reached": found["ours"][goal] >= value} for goal, value in case.goals.items()},
    }


def run(effort: Effort, device: torch.device) -> dict[str, Any]:
    """Everything, as the object that --json prints; the headline is the last model's."""
    on_cpu = device.type == "cpu"
    # What forks comes first, before this process starts threads that a fork would lack.
    memory = {case.name: measure.memory_on_cpu(case) if on_cpu else {} for case in effort.cases}
    peak = measure.peak_of(device)
    models = {case.name: examine(case, effort, device, peak["peak_tflops"], memory[case.name]) for case in effort.cases}
    last = models[effort.cases[-1].name]
    about = {"machine": hardware(), "versions": versions(), "effort": asdict(effort)}
    return {
        "name": "train_step",
        "unit": f"images/s, {effort.cases[-1].name}",
        "ours": last["sides"]["ours"]["images_per_s"],
        "peer": last["sides"]["plain"]["images_per_s"],
        "ratio": last["ratio"],
        "goal": None if on_cpu else RATIO_GOAL_ON_GPU,
        "details": {"peak": peak, "models": models, **about},
    }


def sections(details: dict[str, Any]) -> dict[str, str]:
    """The page, by heading."""
    found = {"Device": table([details["peak"]])}
    for name, model in details["models"].items():
        rows = [{"side": side, **values, **model["memory"].get(side, {})} for side, values in model["sides"].items()]
        found[name] = table(rows)
        found[f"{name}: ours to plain"] = table(
            [{key: model[key] for key in ("ratio", "ratio_cpu", "ratio_of_arithmetic", "parameters_in_millions")}]
        )
        for side, operations in model["operations"].items():
            found[f"{name}: operations of one step, {side}"] = table(operations)
        if model["goals"]:
            found[f"{name}: goals"] = table([{"figure": goal, **values} for goal, values in model["goals"].items()])
    return found


def summary(found: dict[str, Any]) -> str:
    """The headline in one line."""
    ours = f"{found['ours']:.3g} against {found['peer']:.3g} {found['unit']}"
    goal = "" if found["goal"] is None else f" (goal {found['goal']})"
    return f"A training step, 2 × 224 + 8 × 98 crops: {ours}, ratio {found['ratio']}{goal}."


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark and print it; the exit status does not depend on whether goals are reached."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tiny model, under 50 s")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON, as the last line")
    add_out(parser)
    parser.add_argument("--batch", type=int, metavar="N", help="tiles per step, where a GPU is too small or too large")
    parser.add_argument("--cpu", action="store_true", help="on the CPU although there is a GPU")
    options = parser.parse_args(arguments)
    check_out(options)
    device = torch.device("cuda" if torch.cuda.is_available() and not options.cpu else "cpu")
    effort = QUICK if options.quick else ON_CPU if device.type == "cpu" else ON_GPU
    if options.batch:
        effort = replace(effort, cases=tuple(replace(case, batch=options.batch) for case in effort.cases))
    found = run(effort, device)
    parts = sections(found["details"])
    deliver("A training step", summary(found), parts, found, options.out, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
