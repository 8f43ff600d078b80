import math

import pytest
import torch
from lightly.loss import KoLeoLoss

from midnight.ssl.loss.koleo import koleo_loss


@pytest.mark.parametrize(("count", "dim"), [(2, 4), (16, 8), (40, 64)])
def test_same_as_lightly(count: int, dim: int) -> None:
    embeddings = torch.randn(count, dim)
    torch.testing.assert_close(koleo_loss(embeddings), KoLeoLoss()(embeddings), atol=1e-5, rtol=1e-5)


def test_near_neighbours_cost_more() -> None:
    embeddings = torch.randn(8, 16)
    near = embeddings.clone()
    near[1] = near[0] + 1e-3
    assert koleo_loss(near) > koleo_loss(embeddings)


def test_a_single_embedding_costs_nothing() -> None:
    assert float(koleo_loss(torch.randn(1, 4))) == 0


def test_an_embedding_is_never_its_own_neighbour() -> None:
    """Not even where all others lie on the other side: −log 2 for two opposite ones."""
    loss = koleo_loss(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    torch.testing.assert_close(loss, torch.tensor(-math.log(2)))
