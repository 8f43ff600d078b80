"""A small synthetic results folder, as a run would leave it, for the tests of the report."""

import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from midnight.report import figures
from midnight.report.comparison import compare_to_random
from midnight.report.labels import Labels
from midnight.report.page import ReportInputs
from midnight.report.scores import load_scores
from midnight.slides.manifest import refused_entries, write_manifest
from midnight.slides.quarantine import quarantined, unavailable, usable, write_statuses
from midnight.slides.record import Refused
from midnight.tissue.index import TissueRecord, write_records
from midnight.tissue.mask import pack

TASKS = {"bach": "bach", "pcam-10shot": "pc10", "consep": "cnsp", "hest-DEMO_A": "hest", "hest-DEMO_B": "hest"}
MODELS = {"demo-init": ("Random init", 112, 0.0), "demo": ("Demo", 112, 0.2), "demo-hr": ("Demo/196", 196, 0.24)}
NASTY = "<script>alert('x')</script> & \"quotes\": md5 is d41d8cd9, not 9e107d9d; the file was removed"


@dataclass(frozen=True)
class ExampleTile:
    tile: np.ndarray
    reason: str
    fraction: float
    foreground: float
    mpp: float


def score_record(model: str, pooling: str, task: str, rng: np.random.Generator, data: str = "demo") -> dict:
    label, size, gain = MODELS[model]
    base = 0.12 if TASKS[task] == "hest" else 0.45
    values = (base + gain - 0.01 * (pooling == "cls") + rng.normal(0, 0.015, 5)).round(4).tolist()
    return {
        "model": model,
        "label": label,
        "size": size,
        "pooling": pooling,
        "task": task,
        "column": TASKS[task],
        "metric": "MulticlassBalancedAccuracy",
        "values": values,
        "mean": float(np.mean(values)),
        "stdev": float(np.std(values, ddof=1)),
        "sem": float(np.std(values, ddof=1) / np.sqrt(5)),
        "n_runs": 5,
        "protocol": "demo",
        "data": data,
        "versions": {"torch": "2.10.0", "kaiko-eva": "0.4.5"},
        "config_hash": "0f1e2d3c4b5a6978",
        "data_hash": "aa55aa55aa55aa55",
        "model_hash": "1234567890abcdef",
        "seconds": 12.5,
        "provenance": {"commit": "abcdef012345", "lock": "unknown"},
    }


def write_scores(folder: Path, data: str = "demo", skip: tuple[str, ...] = ()) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = []
    for model, (_, size, _) in MODELS.items():
        for pooling in ("cls", "cls_mean"):
            for task in TASKS:
                record = score_record(model, pooling, task, rng, data)
                path = folder / model / str(size) / pooling / f"{task}.json"
                if task not in skip:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(json.dumps(record))
                    paths.append(path)
    return paths


def stained(seed: int, size: int = 112, pink: bool = True) -> np.ndarray:
    """A tile with blobs in H&E-like colours (or fat-like white), uint8 [size, size, 3]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    image = np.full((size, size, 3), (226, 170, 205) if pink else (240, 238, 242), np.float64)
    for _ in range(60 if pink else 6):
        cy, cx, r = *rng.uniform(0, size, 2), rng.uniform(2, 5)
        image[(y - cy) ** 2 + (x - cx) ** 2 < r * r] = (98, 62, 140)
    return (image + rng.normal(0, 6, image.shape)).clip(0, 255).astype(np.uint8)


def write_manifest_of(folder: Path, refused: list[Refused]) -> Path:
    """A manifest of cohort demo without slides, with what was refused when it was pinned."""
    path = folder / "demo" / "manifest.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_manifest(path, [], {"refused": len(refused)} | refused_entries(refused))
    return path


def write_slides(folder: Path, damaged: tuple[str, ...] = ("s06", "s07"), refused: tuple[str, ...] = ()) -> Path:
    """Eight slides, of which the `damaged` ones could not be fetched, and the `refused` ones not for now."""
    reasons = dict(zip(damaged, (NASTY, "shorter than its size: 4096 of 81920 bytes"), strict=False))
    rows = [
        quarantined(name, reasons[name], 4096)
        if name in reasons
        else unavailable(name, "HTTP 403")
        if name in refused
        else usable(name, f"data/{name}.svs", 40_000_000 + i)
        for i, name in enumerate(f"s{i:02d}" for i in range(8))
    ]
    path = folder / "demo" / "0000.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_statuses(path, rows, {"cohort": "demo"})
    return path


def write_tissue(folder: Path) -> Path:
    records = [_tissue(i) for i in range(5)]
    records.append(TissueRecord("s05", "s05.svs", "quarantined", "no resolution: neither mpp nor objective power"))
    path = folder / "demo" / "index.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_records(records, path)
    return path


def _tissue(i: int) -> TissueRecord:
    y, x = np.mgrid[:96, :128]
    mask = ((y - 48) / (30 + i)) ** 2 + ((x - 60 - 3 * i) / 45) ** 2 < 1
    image = np.full((96, 128, 3), 244, np.uint8)
    image[mask] = (214, 150, 190)
    buffer = io.BytesIO()
    Image.fromarray(image).resize((256, 192)).save(buffer, "JPEG")
    sizes = {"mask_width": 128, "mask_height": 96, "tissue_mm2": 4.2 + i}
    return TissueRecord(f"s{i:02d}", f"s{i:02d}.svs", **sizes, packed=pack(mask), jpeg=buffer.getvalue())


def write_run(folder: Path, steps: int = 200, probe: bool = False, data: str = "demo") -> Path:
    rng = np.random.default_rng(1)
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for step in range(1, steps + 1):
        t = step / steps
        dino, ibot = 6 - 2 * t + rng.normal(0, 0.08), 5.5 - 1.5 * t + rng.normal(0, 0.08)
        line = {
            "step": step,
            "loss": dino + ibot,
            "dino": dino,
            "ibot": ibot,
            "regularizer": -1 - t,
            "grad_norm": 2 - t,
            "lr": 1e-3 * min(1, 10 * t),
        }
        lines.append(
            json.dumps(
                line
                | {"mean_cosine": 0.9 - 0.5 * t, "entropy": 5 - t, "prototype_entropy": 4 + t, "images_per_s": 40.0}
            )
        )
    if probe:
        start = {"knn": 0.31, "probe_rank": 9.0, "separation": 0.6, "agreement": 0.2}
        lines += [json.dumps({"step": 0} | start | {f"{name}_random_init": value for name, value in start.items()})]
        lines += [
            json.dumps(
                {"step": step, "knn": 0.6 - 2 / step, "rank": 4 + step / 50, "probe_rank": 9 + step / 10}
                | {"separation": 0.6 + step / 1000, "agreement": 0.2 + step / 2000}
            )
            for step in range(20, steps + 1, 20)
        ]
        facts = {"labels": "project", "names": ["a", "b", "c", "d"], "train": 40, "test": 38, "slides": 9}
        (folder / "probe.json").write_text(json.dumps(facts))
        (folder / "model.json").write_text(json.dumps({"data": data}))
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    recipe = {
        "name": "demo",
        "tiles": {"hsv_filter": {"hue": [90, 180]}, "hed_sigma": 0.05},
        "loss": {"regularizer": "kde"},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(recipe))
    return folder


def write_benchmarks(folder: Path) -> Path:
    header = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"
    jobs = {
        "train/demo": (91.2, "812.4"),
        "train/demo-hr": (44.0, "830.1"),
        "report": (3.25, "NA"),
        "tissue/demo/0000": (12.1, "240.0"),
    }
    for name, (seconds, memory) in jobs.items():
        path = folder / f"{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{header}{seconds}\t0:00:10\t{memory}\t-\t-\t-\t0\t0\t0\t0\n")
    return folder


def write_figures(folder: Path, runs: dict[str, Path], index: Path, scores: list[Path]) -> list[Path]:
    for name, run in runs.items():
        figures.draw_curves(run / "metrics.jsonl", folder / f"curves-{name}.svg", name)
    kinds = [("accepted", True, 0.9)] * 8 + [("hsv", False, 0.3)] * 3 + [("foreground", True, 0.7)] * 4
    tiles = [ExampleTile(stained(i, pink=pink), why, share, 0.25, 0.5) for i, (why, pink, share) in enumerate(kinds)]
    figures.draw_tiles(tiles, folder / "tiles-demo.png", "demo")
    figures.draw_stain(stained(1), figures.variants(stained(1), 0.05), folder / "stain-demo.png", 0.05)
    figures.draw_tissue(index, folder / "tissue-demo.png", "demo")
    comparisons = [c for c in compare_to_random(load_scores(scores), {}) if c.pooling == "cls_mean"]
    figures.draw_gains(comparisons, folder / "gains-cls_mean.svg")
    rng = np.random.default_rng(2)
    images = np.stack([stained(i) for i in range(3)])
    tokens = {"Random init": rng.normal(size=(3, 8, 8, 16)), "Demo": rng.normal(size=(3, 14, 14, 16)).cumsum(1)}
    figures.draw_patches(images, tokens, folder / "pca-demo.png")
    labels = np.repeat(np.arange(4), 20)
    centres = rng.normal(size=(4, 12)) * 4
    clusters = centres[labels] + rng.normal(size=(80, 12))
    names = np.array(["Benign", "InSitu", "Invasive", "Normal"])[labels]
    both = {"Random init": (rng.normal(size=(80, 12)), names), "Demo": (clusters, names)}
    figures.draw_tsne(both, folder / "tsne-bach.png", "BACH")
    return sorted(folder.iterdir())


def write_example(folder: Path, data: str = "demo") -> ReportInputs:
    """A complete example; the returned inputs point into `folder`."""
    scores = write_scores(folder / "scores", data)
    runs = {
        "demo": write_run(folder / "models" / "demo", probe=True, data=data),
        "demo-hr": write_run(folder / "models" / "demo-hr", 80),
    }
    index = write_tissue(folder / "tissue")
    config = {"results_dir": "results/demo", "data": data, "gdc": {"api": "http://user:secret@localhost:80/"}}
    return ReportInputs(
        title="Midnight on the embedded demo data",
        data=data,
        scores=scores,
        slides=[write_slides(folder / "slides")],
        tissue=[index],
        runs=runs,
        figures=write_figures(folder / "figures", runs, index, scores),
        benchmarks=write_benchmarks(folder / "benchmarks"),
        config=config | {"runs": {"demo": {"recipe": "demo", "cohorts": {"demo": 1.0}}}},
        labels=Labels(sources={"demo-init": "init", "demo": "run", "demo-hr": "run"}),
    )
