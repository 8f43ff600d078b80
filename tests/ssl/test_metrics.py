import json
import math
from pathlib import Path

import pytest
import torch

from midnight.errors import MidnightError
from midnight.ssl.metrics import MetricsFile, entropy, mean_cosine, prototype_entropy


def test_mean_cosine_is_the_mean_over_pairs() -> None:
    embeddings = torch.randn(7, 5)
    pairs = [
        float(torch.cosine_similarity(embeddings[i], embeddings[j], dim=0))
        for i in range(7)
        for j in range(7)
        if i != j
    ]
    assert float(mean_cosine(embeddings)) == pytest.approx(sum(pairs) / len(pairs), abs=1e-5)
    assert float(mean_cosine(torch.ones(4, 3))) == pytest.approx(1.0)
    assert math.isnan(mean_cosine(torch.ones(1, 3)))


def test_entropies() -> None:
    assert float(entropy(torch.full((3, 8), 1 / 8))) == pytest.approx(math.log(8))
    assert float(entropy(torch.eye(4))) == 0
    one = torch.zeros(5, 8)
    one[:, 0] = 100
    assert float(prototype_entropy(one, 0.1)) == pytest.approx(0, abs=1e-6)
    assert float(prototype_entropy(torch.eye(8) * 100, 0.1)) == pytest.approx(math.log(8))


def test_a_resumed_file_has_every_step_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    first = MetricsFile(path, 0)
    for step in range(1, 6):
        first.append({"step": step, "loss": 0.0})
    with path.open("a") as file:
        file.write('{"step": 6, "lo')  # cut off by a crash
    resumed = MetricsFile(path, 3)
    resumed.append({"step": 4, "loss": 1.0})
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 0.0), (2, 0.0), (3, 0.0), (4, 1.0)]


def test_what_json_has_no_form_for_is_null(tmp_path: Path) -> None:
    MetricsFile(tmp_path / "m.jsonl", 0).append({"step": 1, "loss": math.nan})
    assert json.loads((tmp_path / "m.jsonl").read_text()) == {"step": 1, "loss": None}


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "m.jsonl", 0)
    metrics.path = Path("/dev/full")
    with pytest.raises(MidnightError, match="/dev/full: can't be written: No space left"):
        metrics.append({"step": 1})
