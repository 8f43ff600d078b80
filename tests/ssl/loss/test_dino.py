import pytest
import torch
from lightly.loss import DINOLoss

from midnight.ssl.loss.cross_entropy import cross_entropy
from midnight.ssl.loss.dino import dino_loss


def targets(*shape: int) -> torch.Tensor:
    return torch.softmax(torch.randn(*shape) / 0.05, dim=-1)


@pytest.mark.parametrize("local", [0, 3])
def test_same_as_lightly(local: int) -> None:
    """lightly's centre is zero at first, so its teacher is a softmax of what it is given."""
    teacher_logits, student = torch.randn(2, 5, 32), torch.randn(2 + local, 5, 32)
    reference = DINOLoss(output_dim=32, student_temp=0.1)
    expected = reference(list(teacher_logits), list(student), teacher_temp=0.07)
    ours = dino_loss(student, torch.softmax(teacher_logits / 0.07, dim=-1), 0.1)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_the_same_crop_is_left_out() -> None:
    teacher, student = targets(2, 3, 8), torch.randn(2, 3, 8)
    first = cross_entropy(student[0], teacher[1], 0.1).mean()
    second = cross_entropy(student[1], teacher[0], 0.1).mean()
    torch.testing.assert_close(dino_loss(student, teacher, 0.1), (first + second) / 2)


def test_least_when_the_student_says_what_the_teacher_says() -> None:
    logits = torch.randn(1, 4, 16).expand(2, 4, 16)
    teacher = torch.softmax(logits / 0.1, dim=-1)
    assert dino_loss(logits, teacher, 0.1) < dino_loss(logits.flip(1), teacher, 0.1)


def test_one_crop_alone_is_an_error() -> None:
    with pytest.raises(ValueError, match="two crops"):
        dino_loss(torch.randn(1, 2, 4), targets(1, 2, 4), 0.1)
