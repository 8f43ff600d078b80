import json
import math
from pathlib import Path

import pytest
import torch

from midnight.errors import MidnightError
from midnight.ssl.monitor.metrics import MetricsFile, effective_rank, entropy, mean_cosine, prototype_entropy


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


@pytest.mark.parametrize("shape", [(9, 5), (5, 9)])
def test_effective_rank_of_known_singular_values(shape: tuple[int, int]) -> None:
    left, right = (torch.linalg.qr(torch.randn(side, 4, dtype=torch.float64))[0] for side in shape)
    values = torch.tensor([4.0, 2.0, 1.0, 1.0], dtype=torch.float64)
    # p = 1/2, 1/4, 1/8, 1/8: an entropy of 1.75 bits
    assert float(effective_rank(left * values @ right.T)) == pytest.approx(2**1.75, rel=1e-6)


def test_effective_rank_at_its_limits() -> None:
    assert float(effective_rank(torch.eye(6, 8))) == pytest.approx(6)
    assert float(effective_rank(torch.ones(5, 8))) == pytest.approx(1, abs=1e-6)
    assert math.isnan(effective_rank(torch.zeros(5, 8)))
    assert math.isnan(effective_rank(torch.full((5, 8), math.inf)))
    assert float(effective_rank(torch.eye(6, 8, dtype=torch.bfloat16))) == pytest.approx(6)


def test_a_run_that_starts_anew_keeps_no_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for _ in range(2):
        MetricsFile(path, 0).append({"step": 0, "knn": 0.5})
    assert MetricsFile(path, 1).path.read_text().count("\n") == 1


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
