import numpy as np

from midnight.demo.glands import GlandStyle, draw_glands


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def test_nuclei_ring_the_lumen_inside_the_epithelium() -> None:
    glands = draw_glands(rng(), np.ones((400, 400), bool), GlandStyle())
    inside = ((glands.nuclei >= 0) & (glands.nuclei < 400)).all(1)
    column, row = glands.nuclei[inside].astype(int).T
    assert len(column) > 150
    assert (glands.epithelium[row, column] > 0).mean() > 0.97
    assert (glands.lumen[row, column] > 0).mean() < 0.03
    assert (glands.epithelium[glands.lumen == 255] == 255).all()
    assert 0.1 < (glands.lumen > 0).sum() / (glands.epithelium > 0).sum() < 0.25


def test_no_glands_where_there_is_no_room() -> None:
    where = np.zeros((300, 300), bool)
    where[100:120, 100:120] = True
    glands = draw_glands(rng(), where, GlandStyle())
    assert len(glands.nuclei) == 0 and not glands.epithelium.any()
