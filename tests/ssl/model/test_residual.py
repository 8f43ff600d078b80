import pytest
import torch
from torch import Tensor

from midnight.ssl.model.packing import Group, Packing, pack, unpack
from midnight.ssl.model.residual import draw_kept, kept_count, residual

CPU = torch.device("cpu")
LAYOUT = (Group(10, 3), Group(7, 2))


def tokens() -> Tensor:
    groups = [torch.randn(*group, 4, generator=torch.Generator().manual_seed(group.samples)) for group in LAYOUT]
    return pack(groups)[0].requires_grad_()


def branch(x: Tensor, layout: Packing) -> Tensor:
    """Depends on all tokens of a sample, as attention does."""
    return torch.cat([(part + part.mean(1, keepdim=True)).tanh().flatten(0, 1) for part in unpack(x, layout)])


@pytest.mark.parametrize(
    ("samples", "rate", "kept"), [(10, 0.4, 6), (10, 0.0, 10), (8, 0.3, 5), (1, 0.9, 1), (90, 0.3, 62)]
)
def test_the_share_of_kept_samples(samples: int, rate: float, kept: int) -> None:
    """Truncated as in DINOv2: 90 · (1 − 0.3) is 62.99… in floating point."""
    assert kept_count(samples, rate) == kept


def test_each_branch_of_each_block_keeps_its_own_samples_each_once() -> None:
    torch.manual_seed(0)
    drawn = draw_kept(LAYOUT, [(0.4, 0.4), (0.0, 0.4), (0.4, 0.0)], CPU)
    assert drawn[1][0] is None and drawn[2][1] is None
    kept = [samples for block in drawn for samples in block if samples is not None]
    assert [[len(group) for group in samples] for samples in kept] == [[6, 4]] * 4
    assert all(len(group.unique()) == len(group) for samples in kept for group in samples)
    assert len({tuple(samples[0].sort().values.tolist()) for samples in kept}) > 1


def test_nothing_is_drawn_where_nothing_drops() -> None:
    state = torch.get_rng_state()
    assert draw_kept(LAYOUT, [(0.0, 0.0)] * 2, CPU) == [[None, None]] * 2
    assert torch.equal(torch.get_rng_state(), state)


def test_kept_samples_get_the_scaled_branch_and_the_others_nothing() -> None:
    x = tokens()
    kept = (torch.tensor([7, 0, 4]), torch.tensor([6, 2]))
    out = residual(x, LAYOUT, kept, branch)
    full = branch(x, LAYOUT)
    parts = zip(unpack(out, LAYOUT), unpack(x, LAYOUT), unpack(full, LAYOUT), kept, (10 / 3, 7 / 2), strict=True)
    for after, before, added, samples, scale in parts:
        expected = before.clone()
        expected[samples] += scale * added[samples]
        torch.testing.assert_close(after, expected)


def test_gradients_are_those_of_masking_the_whole_branch() -> None:
    x, y = tokens(), tokens()
    kept = (torch.tensor([7, 0, 4]), torch.tensor([6, 2]))
    weights = torch.randn(len(x), 4)
    (residual(x, LAYOUT, kept, branch) * weights).sum().backward()
    scales = [torch.zeros(group.samples, group.length, 1) for group in LAYOUT]
    for scale, samples in zip(scales, kept, strict=True):
        scale[samples] = len(scale) / len(samples)
    ((y + branch(y, LAYOUT) * pack(scales)[0]) * weights).sum().backward()
    torch.testing.assert_close(x.grad, y.grad)


def test_only_kept_samples_are_computed() -> None:
    seen: list[int] = []

    def counted(x: Tensor, layout: Packing) -> Tensor:
        seen.extend([len(x), sum(group.tokens for group in layout)])
        return x

    residual(tokens(), LAYOUT, draw_kept(LAYOUT, [(0.4,)], CPU)[0][0], counted)
    assert seen == [6 * 3 + 4 * 2] * 2


def test_the_mean_over_draws_is_the_branch() -> None:
    torch.manual_seed(0)
    x = tokens().detach()
    draws = [residual(x, LAYOUT, draw_kept(LAYOUT, [(0.4,)], CPU)[0][0], branch) for _ in range(4000)]
    torch.testing.assert_close(torch.stack(draws).mean(0), x + branch(x, LAYOUT), atol=0.06, rtol=0)


def test_a_branch_in_lower_precision_is_added_in_that_of_the_tokens() -> None:
    x = tokens()
    kept = draw_kept(LAYOUT, [(0.4,)], CPU)[0][0]
    out = residual(x, LAYOUT, kept, lambda part, _: part.bfloat16())
    out.sum().backward()
    assert out.dtype == torch.float32 and x.grad is not None and x.grad.dtype == torch.float32
