"""How far HEST scores move between processors: the same embeddings and counts, scored with other kernels.

    python benchmarks/hest_processors.py [--quick] [--json] [--out FILE.md]

Each setting is a fresh process in which BLAS, numpy or the number of threads rounds otherwise (benchmarks/README.md).
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from tiles_support.page import add_out, check_out, deliver, table
from tqdm import tqdm

from midnight.evaluate.hest import score_fold
from midnight.provenance import processor_versions

KERNELS = ("SkylakeX", "Haswell", "Sandybridge", "Prescott")
"""OpenBLAS's names: AVX-512, AVX2 (also of AMD's Zen), AVX, SSE3. One that the processor lacks runs as another."""
NUMPY = {"V4": "", "V3": "X86_V4", "V2": "X86_V4 X86_V3"}
"""numpy's instruction sets, by what is switched off: V4 is AVX-512, V3 is AVX2."""
FOLDS = {"IDC": 4, "PRAD": 2, "PAAD": 3, "SKCM": 2, "COAD": 2, "READ": 2, "CCRCC": 6, "LUNG": 2, "LYMPH_IDC": 2}
"""Folds per task: a plausible number for each of the nine."""
SIZES = {False: (1200, 400, 768), True: (300, 100, 96)}
"""Train spots, test spots and embedding size, by --quick."""
GENES = 50


def write_data(path: Path, quick: bool) -> None:
    """Embeddings with a decaying spectrum, and counts that ten directions of it drive, for each fold."""
    train, test, dim = SIZES[quick]
    arrays: dict[str, np.ndarray] = {}
    for number, (task, folds) in enumerate(FOLDS.items()):
        for fold in range(folds):
            rng = np.random.default_rng((number, fold))
            hidden = rng.normal(size=(train + test, dim)) * np.arange(1.0, dim + 1) ** -0.8
            mix = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
            rate = np.exp(0.3 * hidden[:, :10] @ rng.normal(size=(10, GENES)) + 1)
            arrays[f"{task}/{fold}/x"] = (hidden @ mix).astype(np.float32)
            arrays[f"{task}/{fold}/y"] = rng.poisson(rate).astype(np.float32)
    np.savez(path, **arrays)


def score_all(path: Path, quick: bool) -> dict[str, list[list[float]]]:
    """Pearson r per gene of each fold, by task."""
    train = SIZES[quick][0]
    with np.load(path) as data:
        return {
            task: [
                score_fold(x[:train], y[:train], x[train:], y[train:]).genes.tolist()
                for x, y in (
                    (data[f"{task}/{fold}/x"], data[f"{task}/{fold}/y"].astype(float)) for fold in range(folds)
                )
            ]
            for task, folds in FOLDS.items()
        }


def settings(quick: bool) -> Iterator[tuple[str, dict[str, str]]]:
    """Names and environments; the first is what the others are held against."""
    kernels = KERNELS[1:2] if quick else KERNELS[1:]
    yield "as it is", {}
    for name in kernels:
        yield f"OpenBLAS {name}", {"OPENBLAS_CORETYPE": name}
    yield "numpy without AVX-512", {"NPY_DISABLE_CPU_FEATURES": NUMPY["V3"]}
    if not quick:
        yield "two threads", {"OPENBLAS_NUM_THREADS": "2"}
    yield "AVX2 in all", {"OPENBLAS_CORETYPE": "Haswell", "NPY_DISABLE_CPU_FEATURES": NUMPY["V3"]}
    yield "SSE in all", {"OPENBLAS_CORETYPE": "Prescott", "NPY_DISABLE_CPU_FEATURES": NUMPY["V2"]}


def run_setting(path: Path, quick: bool, changed: Mapping[str, str]) -> dict[str, Any]:
    """Scores and libraries of a fresh process with these variables.

    Raises:
        RuntimeError: the process failed.
    """
    before = {name: value for name, value in os.environ.items() if name not in ("OPENBLAS_CORETYPE",)}
    one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--score", str(path), *(["--quick"] if quick else [])]
    done = subprocess.run(command, env=before | one | changed, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"scoring with {dict(changed)} failed: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(first: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, float]:
    """Largest differences in r of a gene, a fold, a task, and that of the overall score."""
    a, b = [{task: np.array(folds) for task, folds in scores.items()} for scores in (first, other)]
    means = [np.array([scores[task].mean(-1).mean() for task in FOLDS]) for scores in (a, b)]
    return {
        "gene": max(float(np.abs(a[task] - b[task]).max()) for task in FOLDS),
        "fold": max(float(np.abs(a[task].mean(-1) - b[task].mean(-1)).max()) for task in FOLDS),
        "task": float(np.abs(means[0] - means[1]).max()),
        "overall": float(abs(means[0].mean() - means[1].mean())),
    }


def published_spread() -> float:
    """The median ± of HEST in the paper's Table A1."""
    text = resources.files("midnight.report").joinpath("published/tablea1.csv").read_text(encoding="utf-8")
    return float(np.median([float(row["hest_pm"]) for row in csv.DictReader(text.splitlines())]))


def measure(quick: bool) -> tuple[dict[str, Any], dict[str, str]]:
    """The JSON object and the page's sections."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.npz"
        write_data(path, quick)
        chosen = list(settings(quick))
        found = {name: run_setting(path, quick, changed) for name, changed in tqdm(chosen, unit="setting")}
    first = next(iter(found.values()))
    rows = []
    for name, result in found.items():
        versions = result["versions"]
        rows.append({"setting": name, "BLAS": versions["BLAS"], "numpy SIMD": versions["numpy SIMD"]})
        rows[-1] |= compare(first["scores"], result["scores"])
    tasks = []
    for task in FOLDS:
        means = [float(np.mean(result["scores"][task])) for result in found.values()]
        tasks.append({"task": task, "folds": FOLDS[task], "r": means[0], "lowest to highest": max(means) - min(means)})
    ours, peer = max(row["overall"] for row in rows), published_spread()
    details = {"settings": rows, "tasks": tasks, "spots": SIZES[quick][0], "dim": SIZES[quick][2]}
    report = {"name": "hest_processors", "unit": "r", "ours": ours, "peer": peer, "ratio": peer / max(ours, 1e-12)}
    sections = {"Largest difference from the first row, in r": table(rows), "Score of each task": table(tasks)}
    return report | {"goal": 10.0, "details": details}, sections


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer settings, fewer spots")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    add_out(parser)
    parser.add_argument("--score", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    check_out(options)
    if options.score:
        scores = score_all(options.score, options.quick)
        print(json.dumps({"scores": scores, "versions": processor_versions()}))
        return
    found, sections = measure(options.quick)
    line = (
        f"HEST overall moves by at most {found['ours']:.1e} between settings; the published ± is {found['peer']:.3f}."
    )
    deliver("HEST on other processors", line, sections, found, options.out, options.json)


if __name__ == "__main__":
    main()
