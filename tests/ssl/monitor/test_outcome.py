import json
import math
from pathlib import Path

import pytest

from midnight.ssl.monitor.outcome import read_records, stayed_flat
from tests.ssl.tiny import tiny_recipe, train_tiny

UNIFORM = math.log(32)


def records(*losses: float | None) -> list[dict[str, float | None]]:
    return [{"step": step, "dino": loss} for step, loss in enumerate(losses, start=1)]


def test_a_loss_that_ends_at_the_logarithm_of_the_prototypes_is_said() -> None:
    line = stayed_flat(records(1.05 * UNIFORM, *[1.001 * UNIFORM] * 20), tiny_recipe())
    assert line is not None
    assert line.startswith("run tiny: DINO's loss ended at 3.47, the logarithm of 32 prototypes is 3.47: ")
    assert "from 32 tiles" in line and "fewer heads.prototypes" in line


@pytest.mark.parametrize(
    "losses",
    [
        [],
        [None],
        [1.05 * UNIFORM, *[0.99 * UNIFORM] * 20],  # as the demo's
        [1.05 * UNIFORM] * 90 + [0.9 * UNIFORM] * 10,  # only the end counts
    ],
)
def test_a_loss_below_it_is_not(losses: list[float | None]) -> None:
    assert stayed_flat(records(*losses), tiny_recipe()) is None


def test_without_dino_there_is_nothing_to_say() -> None:
    assert stayed_flat(records(UNIFORM), tiny_recipe(loss={"dino": 0.0})) is None


def test_a_run_says_it_at_its_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train_tiny(tmp_path / "run", tiny_recipe(optimizer={"base_lr": 1e-9}))
    found = read_records(tmp_path / "run" / "metrics.jsonl")
    assert [record["step"] for record in found] == list(range(1, 9))
    line = stayed_flat(found, tiny_recipe())
    assert line is not None and line in caplog.text
    assert read_records(tmp_path / "none.jsonl") == []
    assert all(json.dumps(record) for record in found)
