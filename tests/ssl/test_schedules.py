import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midnight.ssl.schedules import cosine, linear, peak_lr, values_at
from tests.ssl.tiny import tiny_recipe


def cosine_table(base: float, final: float, steps: int, warmup: int = 0) -> np.ndarray:
    """A whole schedule as an array: a linear rise that ends at `base`, then half a cosine down (or up) to `final`."""
    rise = base * np.arange(1, warmup + 1) / warmup if warmup else np.zeros(0)
    x = np.arange(steps - warmup)
    return np.concatenate([rise, final + 0.5 * (base - final) * (1 + np.cos(np.pi * x / len(x)))])


def test_all_schedules_against_a_table() -> None:
    recipe = tiny_recipe(
        training={"iterations": 200},
        optimizer={"base_lr": 1e-3, "warmup": 0.1, "freeze_last_layer": 0.05},
        loss={"teacher_warmup": 0.3},
    )
    values = [values_at(recipe, step) for step in range(200)]
    peak = 1e-3 * (8 / 1024) ** 0.5
    assert np.allclose([value.lr for value in values], cosine_table(peak, 1e-6, 200, 20), rtol=1e-9)
    assert np.allclose([value.weight_decay for value in values], cosine_table(0.04, 0.2, 200), rtol=1e-9)
    assert np.allclose([value.momentum for value in values], cosine_table(0.994, 1.0, 200), rtol=1e-9)
    warm = np.concatenate([0.04 + 0.03 * np.arange(60) / 60, np.full(140, 0.07)])
    assert np.allclose([value.teacher_temperature for value in values], warm, rtol=1e-9)
    assert [value.frozen_prototypes for value in values] == [True] * 10 + [False] * 190


@pytest.mark.parametrize(("gpus", "batch", "accumulation", "effective"), [(32, 12, 2, 768), (48, 6, 4, 1152)])
def test_peak_follows_the_effective_batch(gpus: int, batch: int, accumulation: int, effective: int) -> None:
    recipe = tiny_recipe(training={"batch_size": batch, "accumulation": accumulation}, optimizer={"base_lr": 3.5e-4})
    assert peak_lr(recipe, gpus) == pytest.approx(3.5e-4 * (effective / 1024) ** 0.5)


def test_schedules_may_be_longer_than_the_run_or_have_no_warmup() -> None:
    long = tiny_recipe(training={"iterations": 100, "schedule_iterations": 200})
    assert values_at(long, 99).momentum == values_at(tiny_recipe(training={"iterations": 200}), 99).momentum
    bare = tiny_recipe(optimizer={"warmup": 0.0, "freeze_last_layer": 0.0}, loss={"teacher_warmup": 0.0})
    first = values_at(bare, 0)
    assert (first.lr, first.teacher_temperature, first.frozen_prototypes) == (peak_lr(bare, 1), 0.07, False)


@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(-2, 3))
def test_interpolations_stay_between_their_ends(start: float, end: float, progress: float) -> None:
    low, high = min(start, end) - 1e-9, max(start, end) + 1e-9
    assert low <= cosine(start, end, progress) <= high
    assert low <= linear(start, end, progress) <= high
    assert cosine(start, end, -1) == pytest.approx(start)
    assert cosine(start, end, 2) == pytest.approx(end)
