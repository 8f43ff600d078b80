import math

import pytest
import torch
import torch.nn.functional as F

from midnight.ssl.loss.kde import kde_loss
from midnight.ssl.monitor.metrics import mean_cosine


@pytest.mark.parametrize(("count", "dim", "kappa"), [(2, 3, 5.0), (17, 8, 5.0), (64, 128, 1.0), (9, 4, 40.0)])
def test_closed_form_in_float64(count: int, dim: int, kappa: float) -> None:
    embeddings = torch.randn(count, dim)
    unit = F.normalize(embeddings.double(), dim=-1)
    means = [
        sum(math.exp(kappa * float(unit[i] @ unit[j])) for j in range(count) if j != i) / (count - 1)
        for i in range(count)
    ]
    expected = sum(math.log(mean) for mean in means) / count
    assert float(kde_loss(embeddings, kappa)) == pytest.approx(expected, abs=1e-5, rel=1e-5)


def test_minimised_alone_it_spreads_embeddings() -> None:
    torch.manual_seed(0)
    embeddings = torch.nn.Parameter(torch.randn(32, 16) + 2.0)
    before = float(mean_cosine(embeddings))
    optimizer = torch.optim.SGD([embeddings], lr=5.0)
    for _ in range(200):
        optimizer.zero_grad()
        kde_loss(embeddings, 5.0).backward()
        optimizer.step()
    after = float(mean_cosine(embeddings))
    assert before > 0.5
    assert after < 0.05


def test_largest_when_all_embeddings_are_one() -> None:
    assert float(kde_loss(torch.ones(5, 4), 5.0)) == pytest.approx(5.0)


def test_gradients_are_finite_and_one_embedding_has_no_neighbours() -> None:
    embeddings = torch.randn(6, 4, requires_grad=True)
    kde_loss(embeddings, 5.0).backward()
    assert embeddings.grad is not None
    assert torch.isfinite(embeddings.grad).all()
    assert float(kde_loss(torch.randn(1, 4), 5.0)) == 0
    assert float(kde_loss(torch.randn(1, 4), 5.0, gather=True)) == 0


def test_computed_in_float32_under_autocast() -> None:
    embeddings = torch.randn(16, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = kde_loss(embeddings, 5.0)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, kde_loss(embeddings, 5.0))
