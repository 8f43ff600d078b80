import pytest
import torch

from midnight.errors import ConfigError
from midnight.ssl.model import blocks
from midnight.ssl.model.network import build_student, teacher_of, update_teacher
from tests.ssl.tiny import tiny_recipe


def test_teacher_starts_as_the_student_without_gradients_or_dropped_paths() -> None:
    student = build_student(tiny_recipe()).train()
    teacher = teacher_of(student)
    assert all(torch.equal(a, b) for a, b in zip(student.parameters(), teacher.parameters(), strict=True))
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    images = torch.randn(4, 3, 28, 28)
    torch.testing.assert_close(teacher.backbone(images).cls, teacher.backbone(images).cls)
    torch.manual_seed(0)
    first = student.backbone(images).cls
    assert not torch.allclose(first, student.backbone(images).cls)


@pytest.mark.parametrize("momentum", [0.0, 0.9, 1.0])
def test_moving_average(momentum: float) -> None:
    student = build_student(tiny_recipe())
    teacher = teacher_of(student)
    old = teacher.dino_head.prototypes.clone()
    student.dino_head.prototypes.data += 1
    update_teacher(student, teacher, momentum)
    expected = momentum * old + (1 - momentum) * student.dino_head.prototypes
    torch.testing.assert_close(teacher.dino_head.prototypes, expected)


def test_one_head_or_two() -> None:
    two = build_student(tiny_recipe())
    one = build_student(tiny_recipe(heads={"shared": True}))
    assert one.ibot_head is one.dino_head
    assert two.ibot_head is not two.dino_head
    assert len(one.parts()) == 2
    assert len(two.parts()) == 3


def test_seed_decides_the_init_and_heads_do_not_touch_the_backbone() -> None:
    def backbone(**change: object) -> torch.Tensor:
        return build_student(tiny_recipe(**change)).backbone.vit.blocks[1].attn.qkv.weight

    assert torch.equal(backbone(), backbone(heads={"prototypes": 64}))
    assert not torch.equal(backbone(), backbone(seed=1))


def test_crops_that_do_not_fit_are_named() -> None:
    with pytest.raises(ConfigError, match=r"crops\.local_size: 15 px"):
        build_student(tiny_recipe(crops={"local_size": 15}))


def test_recipe_keys_reach_the_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BACKEND", "eager")
    plain = build_student(tiny_recipe())
    asked = build_student(tiny_recipe(training={"compile": True, "activation_checkpointing": True}))
    assert (plain.backbone.compiled, plain.backbone.checkpointing) == (False, False)
    for network in (asked, teacher_of(asked)):
        assert network.backbone.checkpointing
        assert all(block._compiled_call_impl is not None for block in network.backbone.vit.blocks)
    assert plain.state_dict().keys() == asked.state_dict().keys()
