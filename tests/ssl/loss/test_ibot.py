import torch
from lightly.loss import IBOTPatchLoss

from midnight.ssl.loss.ibot import hidden_rows, ibot_loss, mask_weights


def masks() -> torch.Tensor:
    out = torch.rand(4, 4, 4) < 0.4
    out[0, 0, 0] = True
    out[2] = False
    return out


def test_same_as_lightly() -> None:
    torch.manual_seed(0)
    mask = masks()
    hidden = int(mask.sum())
    teacher, student = torch.randn(hidden, 24), torch.randn(hidden, 24)
    expected = IBOTPatchLoss(output_dim=24, student_temp=0.1)(teacher, student, mask, teacher_temp=0.07)
    ours = ibot_loss(student, torch.softmax(teacher / 0.07, dim=-1), mask.flatten(1), 0.1)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_every_crop_with_a_mask_weighs_the_same() -> None:
    mask = torch.zeros(3, 10, dtype=torch.bool)
    mask[0, :1], mask[1, :5] = True, True
    weights = mask_weights(mask)
    torch.testing.assert_close(weights, torch.tensor([1.0] + [0.2] * 5))


def test_hidden_rows_are_those_of_boolean_indexing() -> None:
    mask, patches = masks().flatten(1), torch.randn(4, 16, 3)
    assert torch.equal(patches.flatten(0, 1)[hidden_rows(mask)], patches[mask])
    assert torch.equal(mask_weights(mask), mask_weights(mask, hidden_rows(mask)))


def test_no_hidden_patch_is_a_loss_of_zero_with_a_gradient() -> None:
    student = torch.randn(0, 8, requires_grad=True)
    loss = ibot_loss(student, torch.zeros(0, 8), torch.zeros(2, 9, dtype=torch.bool), 0.1)
    loss.backward()
    assert loss == 0
