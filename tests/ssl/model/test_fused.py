"""Fused blocks compute what plain blocks compute: outputs and all gradients, on whatever device."""

from typing import Any

import pytest
import torch
from torch import Tensor

from midnight.config import Backbone
from midnight.ssl.model import backbone as module
from midnight.ssl.model.backbone import Features, MaskedViT, build_vit

SMALL: dict[str, Any] = {"patch_size": 7, "embed_dim": 48, "depth": 3, "num_heads": 3}
BACKBONES = {
    "GELU": Backbone(arch="vit_tiny_patch16_224", kwargs=SMALL),
    "SwiGLU, LayerScale": Backbone(arch="vit_giant_patch14_reg4_dinov2", kwargs=SMALL, layer_scale=0.5),
}
every_backbone = pytest.mark.parametrize("backbone", BACKBONES.values(), ids=BACKBONES)
every_rate = pytest.mark.parametrize("rate", [0.0, 0.4])


@pytest.fixture(autouse=True)
def _fuse_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FUSED_ON", {"cpu"})


def build(backbone: Backbone, rate: float, fuse: bool, **arguments: Any) -> MaskedViT:
    torch.manual_seed(0)
    model = MaskedViT(build_vit(backbone, 28, rate), **arguments).train()
    with torch.no_grad():
        for parameter in model.parameters():  # biases 0 and scales 1 would hide what is wrong with them
            parameter.add_(0.1 * torch.randn_like(parameter))
    if fuse:
        model.fuse_blocks()
    assert model.fuse == fuse
    return model


def inputs() -> tuple[list[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(1)
    crops = [torch.randn(4, 3, 28, 28, generator=generator), torch.randn(6, 3, 14, 14, generator=generator)]
    return crops, torch.rand(4, 16, generator=generator) < 0.4


def flat(features: list[Features]) -> Tensor:
    return torch.cat([part.flatten() for each in features for part in (each.cls, each.registers, each.patches)])


def run(model: MaskedViT) -> dict[str, Tensor]:
    crops, masks = inputs()
    torch.manual_seed(2)
    out = flat(model(crops, masks))
    (out * torch.sin(torch.arange(len(out)))).sum().backward()
    gradients = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    return {"output": out.detach(), **gradients}


def assert_same(ours: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            ours[name], value, atol=1e-4, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )


@every_rate
@every_backbone
def test_outputs_and_gradients_are_those_of_plain_blocks(backbone: Backbone, rate: float) -> None:
    assert_same(run(build(backbone, rate, fuse=True)), run(build(backbone, rate, fuse=False)))


@every_rate
def test_with_activation_checkpointing_as_without(rate: float) -> None:
    backbone = BACKBONES["SwiGLU, LayerScale"]
    assert_same(run(build(backbone, rate, True, checkpointing=True)), run(build(backbone, rate, True)))


@every_backbone
def test_of_one_crop_size_and_without_gradients(backbone: Backbone) -> None:
    images, masks = inputs()[0][0], inputs()[1]
    models = [build(backbone, 0.0, fuse).eval() for fuse in (True, False)]
    with torch.no_grad():
        ours, expected = (flat([model(images, masks)]) for model in models)
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


@every_rate
@every_backbone
def test_of_the_tokens_that_the_losses_look_at(backbone: Backbone, rate: float) -> None:
    crops, masks = inputs()
    hidden = masks.flatten().nonzero().squeeze(1)

    def looked_at(model: MaskedViT) -> dict[str, Tensor]:
        torch.manual_seed(2)
        cls, patches = model(crops, masks, hidden=hidden)
        assert [len(each) for each in cls] == [4, 6] and len(patches) == len(hidden)
        out = torch.cat([each.flatten() for each in (*cls, patches)])
        (out * torch.sin(torch.arange(len(out)))).sum().backward()
        gradients = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
        return {"output": out.detach(), **gradients}

    assert_same(looked_at(build(backbone, rate, fuse=True)), looked_at(build(backbone, rate, fuse=False)))
    assert_same(
        looked_at(build(backbone, rate, fuse=True, checkpointing=True)), looked_at(build(backbone, rate, fuse=False))
    )
