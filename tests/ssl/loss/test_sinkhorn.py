import pytest
import torch
from lightly.loss.swav_loss import sinkhorn as reference

from midnight.ssl.loss.sinkhorn import sinkhorn


@pytest.mark.parametrize("iterations", [1, 3, 10])
def test_same_as_lightly(iterations: int) -> None:
    logits = torch.rand(24, 16) * 2 - 1
    ours = sinkhorn(logits, 0.07, iterations)
    torch.testing.assert_close(ours, reference(logits, iterations, 0.07), atol=1e-5, rtol=1e-5)


def test_rows_are_distributions_and_columns_are_used_equally() -> None:
    targets = sinkhorn(torch.rand(64, 16) * 2 - 1, 0.1, 50)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(64))
    torch.testing.assert_close(targets.sum(dim=0), torch.full((16,), 4.0), atol=0.05, rtol=0)


def test_a_shift_of_all_logits_changes_nothing_and_large_ones_stay_finite() -> None:
    logits = torch.rand(10, 6)
    torch.testing.assert_close(sinkhorn(logits + 50, 0.04), sinkhorn(logits, 0.04), atol=1e-3, rtol=1e-3)
    assert torch.isfinite(sinkhorn(torch.randn(10, 6) * 20, 0.04)).all()


def test_no_rows_are_no_rows() -> None:
    assert sinkhorn(torch.zeros(0, 6), 0.04).shape == (0, 6)


def test_low_precision_goes_in_and_float32_comes_out() -> None:
    assert sinkhorn(torch.rand(4, 6).bfloat16(), 0.04).dtype == torch.float32


def test_the_teachers_logits_are_left_as_they_are() -> None:
    logits = torch.rand(5, 6)
    before = logits.clone()
    sinkhorn(logits, 0.04)
    assert torch.equal(logits, before)
