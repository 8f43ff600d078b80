import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midnight.demo.noise import jittered_lattice, periodic_noise, rough_noise, smooth_noise


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def test_smooth_noise_is_smooth_and_centred() -> None:
    field = smooth_noise(rng(), (400, 600), 20)
    assert field.shape == (400, 600) and field.dtype == np.float32
    assert abs(field.mean()) < 0.15 and 0.4 < field.std() < 1.0
    assert np.abs(np.diff(field, axis=1)).max() < 0.5


def test_rough_noise_has_finer_detail() -> None:
    rough, smooth = rough_noise(rng(), (300, 300), 40, 3), smooth_noise(rng(), (300, 300), 40)
    assert np.diff(rough).std() > 1.5 * np.diff(smooth).std()


def test_periodic_noise_has_no_seam_and_the_asked_correlation() -> None:
    field = periodic_noise(rng(), 256, 20, 3)
    inner = np.abs(np.diff(field, axis=0)).mean()
    seam = np.abs(field[0] - field[-1]).mean()
    assert seam < 1.6 * inner
    assert field.std() == pytest.approx(1, abs=1e-4)
    assert np.diff(field, axis=1).std() < 0.3 * np.diff(field, axis=0).std()


@settings(max_examples=25)
@given(st.integers(30, 200), st.integers(30, 200), st.floats(5, 25), st.floats(0, 0.2))
def test_lattice_is_inside_and_evenly_spaced(height: int, width: int, spacing: float, jitter: float) -> None:
    points = jittered_lattice(rng(), (height, width), spacing, jitter)
    assert (points >= 0).all() and (points < [width, height]).all()
    distance = np.hypot(*(points[:, None] - points[None]).transpose(2, 0, 1))
    np.fill_diagonal(distance, np.inf)
    assert distance.min() >= spacing * (1 - 2 * np.sqrt(2) * jitter) * 0.99
    assert len(points) == pytest.approx(height * width / (0.866 * spacing**2), rel=0.8)
