"""An evaluation by our workflow's steps beside kaiko-eva's command line, task by task; whether scores are equal.

    python benchmarks/evaluate.py [--quick] [--json] [--out FILE.md]

On the demo's data and one ViT-S/14 with random weights; see benchmarks/README.md.
"""

import argparse
import statistics
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evaluate_support import measure
from evaluate_support.workspace import Effort, prepare
from tiles_support.page import add_out, check_out, deliver, hardware, table, versions

VIT_S = "vit_small_patch14_dinov2"
BOTH = ("cls", "cls_mean")
FULL = Effort(VIT_S, {}, 56, {"demo-bach": {}, "demo-pcam-10shot": {"runs": 5}, "demo-consep": {"runs": 5}}, BOTH, 2)
QUICK = Effort(VIT_S, {}, 28, {"demo-consep": {"runs": 1, "max_steps": 14}}, ("cls",), 1, 0.25)
GOAL = 6.0


def run(effort: Effort, goal: float | None) -> dict[str, Any]:
    """Everything, as the object that --json prints."""
    with tempfile.TemporaryDirectory(prefix="midnight-bench-") as folder:
        ours, peers = measure.run_all(prepare(Path(folder), effort))
    clocks = {}
    for clock in ("wall", "cpu"):
        mine = statistics.median(measure.total(one.readings.values(), clock) for one in ours)
        clocks[clock] = (mine, measure.total((one.reading for one in peers), clock))
    (wall, eva_wall), (cpu, eva_cpu) = clocks["wall"], clocks["cpu"]
    details = {
        "totals": {"ours_cpu_s": round(cpu, 1), "eva_cpu_s": round(eva_cpu, 1), "ratio_cpu": round(eva_cpu / cpu, 2)},
        "ours": measure.step_rows(ours),
        "cells": measure.cell_rows(ours, peers),
        "scores": measure.score_rows(ours, peers),
        "effort": asdict(effort),
    }
    return {
        "name": "evaluate",
        "unit": "s",
        "ours": round(wall, 1),
        "peer": round(eva_wall, 1),
        "ratio": round(eva_wall / wall, 2),
        "goal": goal,
        "details": details | {"machine": hardware(), "versions": versions()},
    }


def sections(details: dict[str, Any]) -> dict[str, str]:
    """The page, by heading."""
    return {
        "In all, by CPU time": table([details["totals"]]),
        "Ours, by step": table(details["ours"]),
        "By task and pooling": table(details["cells"]),
        "Scores, run by run": table(details["scores"]),
    }


def summary(found: dict[str, Any]) -> str:
    """The headline in one line."""
    effort, scores = found["details"]["effort"], found["details"]["scores"]
    runs = sum(len(row["ours"]) for row in scores)
    what = f"A ViT-S/14 on {len(effort['tasks'])} tasks, {len(scores)} scores of {runs} runs in all"
    same = f"{sum(row['identical_runs'] for row in scores)} runs have identical scores"
    goal = "" if found["goal"] is None else f" (goal {found['goal']})"
    return f"{what}: {found['ours']} s against {found['peer']} s, ratio {found['ratio']}{goal}; {same}."


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark and print it; the exit status does not depend on whether the goal is reached."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="one task, where start-up is nearly everything; under 50 s"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON, as the last line")
    add_out(parser)
    options = parser.parse_args(arguments)
    check_out(options)
    found = run(QUICK, None) if options.quick else run(FULL, GOAL)
    deliver("An evaluation", summary(found), sections(found["details"]), found, options.out, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
