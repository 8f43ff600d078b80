import pytest
import torch
from lightly.models.modules.center import Center

from midnight.ssl.loss.centering import Centre, Centres


def batches(count: int, rows: int = 12) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(rows, 8, generator=generator) for _ in range(count)]


def test_same_as_lightly_batch_after_batch() -> None:
    """DINOv2 waits for the new centre when the next targets are made, which is the same."""
    ours, reference = Centre(8, 0.9), Center((1, 8), momentum=0.9)
    for logits in batches(5):
        expected = ((logits - reference.value) / 0.05).softmax(dim=-1)
        reference.update(logits)
        torch.testing.assert_close(ours.targets(logits, 0.05), expected)
        ours.move()
    torch.testing.assert_close(ours.centre[None], reference.value)


def test_micro_batches_move_it_together_once() -> None:
    first, second = batches(2)
    parts, whole = Centre(8, 0.5), Centre(8, 0.5)
    before = [parts.targets(logits, 1.0) for logits in (first, second)]
    torch.testing.assert_close(torch.cat(before), whole.targets(torch.cat([first, second]), 1.0))
    parts.move()
    whole.move()
    torch.testing.assert_close(parts.centre, whole.centre)
    assert parts.centre.abs().min() > 0


def test_a_step_that_is_left_out_does_not_move_it() -> None:
    centres = Centres(8, 0.5)
    centres.dino.targets(torch.full((4, 8), torch.nan), 1.0)
    centres.forget()
    good = batches(1)[0]
    for one in (centres.dino, centres.ibot):
        one.targets(good, 1.0)
    centres.move()
    torch.testing.assert_close(centres.dino.centre, good.mean(dim=0) / 2)
    torch.testing.assert_close(centres.ibot.centre, good.mean(dim=0) / 2)


def test_without_hidden_patches_it_stays() -> None:
    centre = Centre(8, 0.5)
    assert centre.targets(torch.zeros(0, 8), 0.05).shape == (0, 8)
    centre.move()
    assert torch.equal(centre.centre, torch.zeros(8))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_goes_in_and_float32_comes_out(dtype: torch.dtype) -> None:
    assert Centre(6, 0.9).targets(torch.rand(4, 6).to(dtype), 0.04).dtype == torch.float32
