"""Measures without labels, on embeddings whose answers are known."""

import math

import pytest
import torch

from midnight.ssl.monitor.label_free import (
    MEASURES,
    describe,
    neighbour_agreement,
    places_found,
    separation,
    slides_mixed,
    spectrum_decay,
)

SLIDES = torch.arange(60) // 20
GENERATOR = torch.Generator().manual_seed(0)
TISSUE = torch.randn(60, 8, generator=GENERATOR)
STAIN = torch.randn(3, 8, generator=GENERATOR)[SLIDES]
OTHER = torch.randn(60, 8, generator=GENERATOR)


def test_neighbours_by_tissue_are_kept_and_those_by_stain_are_not() -> None:
    assert neighbour_agreement(TISSUE, TISSUE, SLIDES) == 1
    little = neighbour_agreement(TISSUE, TISSUE + 0.1 * OTHER, SLIDES)
    much = neighbour_agreement(TISSUE, TISSUE + 2 * OTHER, SLIDES)
    chance = neighbour_agreement(TISSUE, OTHER, SLIDES)
    assert 1 > little > 0.8 > much > chance
    assert chance == pytest.approx(10 / 40, abs=0.08)


def test_neighbours_of_the_same_slide_do_not_count() -> None:
    """Each tile's own slide is nearest; without it what is left is the tissue."""
    rows = TISSUE + 30 * STAIN
    assert neighbour_agreement(rows, rows + OTHER, SLIDES) < 1
    alone = torch.zeros(60, dtype=torch.int64)
    assert neighbour_agreement(rows, rows + OTHER, alone) > 0.3
    assert math.isnan(neighbour_agreement(TISSUE[:1], TISSUE[:1], alone[:1]))


def test_places_are_found_by_what_a_stain_leaves() -> None:
    assert places_found(TISSUE, TISSUE) == 1
    assert places_found(TISSUE, OTHER) < 0.1


def test_separation_is_in_deviations_of_other_tiles() -> None:
    assert separation(TISSUE, TISSUE) > separation(TISSUE, TISSUE + OTHER) > separation(TISSUE, OTHER)
    # two pairs of tiles: cosines of 1 within a pair (4 of 12), 0 between (8 of 12), so a mean of 1/3
    pairs = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    deviation = torch.tensor([1.0] * 4 + [0.0] * 8).std()
    assert separation(pairs, pairs) == pytest.approx(float((1 - 1 / 3) / deviation))


def test_slides_are_mixed_or_apart() -> None:
    assert slides_mixed(TISSUE, SLIDES) == pytest.approx(1, abs=0.15)
    assert slides_mixed(0.01 * TISSUE + STAIN, SLIDES) == 0


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_the_decay_of_a_known_spectrum(exponent: float) -> None:
    """Rows with an orthogonal basis and singular values n^(-α/2)."""
    basis = torch.linalg.qr(torch.randn(400, 64, dtype=torch.float64, generator=GENERATOR) - 0.0)[0]
    basis = torch.linalg.qr(basis - basis.mean(dim=0))[0]
    rows = basis * torch.arange(1, 65, dtype=torch.float64) ** (-exponent / 2)
    assert spectrum_decay(rows) == pytest.approx(exponent, abs=1e-3)


def test_all_are_described_and_none_of_what_is_not_finite() -> None:
    found = describe(TISSUE, TISSUE + OTHER, SLIDES)
    assert tuple(found) == MEASURES
    assert all(math.isfinite(value) for value in found.values())
    broken = TISSUE.clone()
    broken[3, 2] = torch.inf
    for arguments in ((broken, TISSUE), (TISSUE, broken)):
        assert all(math.isnan(value) for value in describe(*arguments, SLIDES).values())


def test_all_are_alike_for_a_constant_embedding() -> None:
    rows = torch.ones(60, 8)
    assert describe(rows, rows, SLIDES)["probe_rank"] == pytest.approx(1, abs=1e-4)
