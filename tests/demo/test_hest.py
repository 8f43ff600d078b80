import csv
import json
from pathlib import Path

import anndata
import h5py
import numpy as np
import pytest

from midnight.demo.hest import GENES, PATIENTS, SIDE, SILENT, TASKS, draw_counts, draw_programme, gene_names


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def split(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / "splits" / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("task", list(TASKS))
def test_layout(benchmark_sets: Path, task: str) -> None:
    folder = benchmark_sets / "hest" / task
    genes = json.loads((folder / "var_50genes.json").read_text())["genes"]
    assert len(genes) == len(set(genes)) == 50
    for fold in range(max(PATIENTS) + 1):
        train, test = split(folder, f"train_{fold}"), split(folder, f"test_{fold}")
        assert train and test and not {r["sample_id"] for r in train} & {r["sample_id"] for r in test}
        assert len(train) + len(test) == len(PATIENTS)
        for row in train + test:
            table = anndata.read_h5ad(folder / row["expr_path"])
            with h5py.File(folder / row["patches_path"]) as file:
                images, barcodes, coords = (file[key][:] for key in ("img", "barcode", "coords"))
            assert images.shape == (len(table), SIDE, SIDE, 3) and images.dtype == np.uint8
            assert barcodes.flatten().astype(str).tolist() == table.obs_names.tolist()
            assert coords.shape == (len(table), 2)
            assert set(genes) < set(table.var_names)
            assert np.isfinite(table.X).all() and (table.X >= 0).all() and (np.rint(table.X) == table.X).all()
            assert np.allclose(table.obs.to_numpy().sum(1), 1)


def test_listed_genes_depend_on_the_features_and_silent_ones_do_not() -> None:
    programme = draw_programme(rng())
    features = rng(1).uniform(0, 1.5, (3000, programme.weights.shape[1]))
    counts = draw_counts(rng(2), features, programme)
    logs = np.log1p(counts)
    design = np.column_stack([features, np.ones(len(features))])
    fit = design @ np.linalg.lstsq(design, logs, rcond=None)[0]
    explained = 1 - ((logs - fit) ** 2).mean(0) / logs.var(0)
    assert np.median(explained[:GENES]) > 0.2
    assert explained[GENES:].max() < 0.05
    assert len(gene_names()) == GENES + SILENT == counts.shape[1]
