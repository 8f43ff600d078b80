import numpy as np
import pytest

from midnight.demo.classes import Nucleus
from midnight.demo.nuclei import ANGLES, BANK_MPP, LOOKS, bank, join_cells, label, make_cells, stamp


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def area(kind: Nucleus) -> float:
    return float((bank(kind, BANK_MPP).outline > 127).mean((0, 1)).sum() * BANK_MPP**2)


def test_kinds_differ_in_size() -> None:
    assert area(Nucleus.TUMOUR) > 1.8 * area(Nucleus.EPITHELIAL) > 1.8 * area(Nucleus.LYMPHOCYTE)
    assert 25 < area(Nucleus.LYMPHOCYTE) < 45


def test_sprites_fit_their_window() -> None:
    for kind in Nucleus:
        outline = bank(kind, BANK_MPP).outline
        edge = np.concatenate([outline[..., 0, :], outline[..., -1, :], outline[..., :, 0], outline[..., :, -1]], -1)
        assert edge.max() < 127, kind
        assert LOOKS[kind].side % 4 == 0


@pytest.mark.parametrize("mpp", [0.25, 0.5, 1.0])
def test_direction_is_that_of_the_long_axis(mpp: float) -> None:
    for angle in (0, 4, 8, 12):
        mask = bank(Nucleus.FIBROBLAST, mpp).outline[0, angle].astype(float)
        y, x = np.indices(mask.shape) - (len(mask) - 1) / 2
        turn = 0.5 * np.arctan2(2 * (mask * x * y).sum(), (mask * (x * x - y * y)).sum())
        error = (turn - angle * np.pi / ANGLES + np.pi / 2) % np.pi - np.pi / 2
        assert abs(error) < 0.2


def test_stamped_nuclei_lie_where_the_labels_say() -> None:
    centres = rng().uniform(10, 90, (12, 2)).astype(np.float32)
    outside = np.array([[-3, 20], [50, 101]], np.float32)
    cells = join_cells([make_cells(rng(), centres, Nucleus.TUMOUR), make_cells(rng(), outside, Nucleus.LYMPHOCYTE)])
    plane = np.zeros((400, 400), np.uint8)
    stamp(plane, cells, 0.25)
    instances, kinds = label((400, 400), cells, 0.25)
    assert set(np.unique(kinds)) == {0, Nucleus.TUMOUR + 1}
    assert instances.max() <= 12
    inside = instances > 0
    assert plane[inside].mean() > 60 and plane[~inside].mean() < 2
    rows, columns = np.rint(centres[:, 1] * 4).astype(int), np.rint(centres[:, 0] * 4).astype(int)
    assert (instances[rows, columns] > 0).mean() > 0.9


def test_stamping_never_lightens() -> None:
    plane = rng().integers(0, 255, (100, 100)).astype(np.uint8)
    before = plane.copy()
    stamp(plane, make_cells(rng(), np.array([[12.0, 12.0]], np.float32), Nucleus.EPITHELIAL), 0.25)
    assert (plane >= before).all() and (plane > before).any()
