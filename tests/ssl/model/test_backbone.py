from typing import Any

import pytest
import timm
import torch

from midnight.config import Backbone
from midnight.errors import ConfigError
from midnight.ssl.model.backbone import MaskedViT, build_vit, check_sizes, exported_kwargs

KWARGS: dict[str, Any] = {"patch_size": 14, "embed_dim": 24, "depth": 2, "num_heads": 2}
TINY = Backbone(arch="vit_tiny_patch16_224", kwargs=KWARGS, layer_scale=1.0)
REGISTERS = Backbone(arch="vit_small_patch14_reg4_dinov2", kwargs=KWARGS)


@pytest.mark.parametrize(("backbone", "registers"), [(TINY, 0), (REGISTERS, 4)])
def test_features_have_the_documented_shapes(backbone: Backbone, registers: int) -> None:
    model = MaskedViT(build_vit(backbone, 56))
    features = model(torch.randn(3, 3, 56, 56))
    assert features.cls.shape == (3, 24)
    assert features.registers.shape == (3, registers, 24)
    assert features.patches.shape == (3, 16, 24)
    assert model.patch_size == 14


@pytest.mark.parametrize("backbone", [TINY, REGISTERS])
def test_without_masks_it_is_timms_own_forward(backbone: Backbone) -> None:
    model = MaskedViT(build_vit(backbone, 56)).eval()
    images = torch.randn(2, 3, 56, 56)
    tokens = model.vit.forward_features(images)
    features = model(images)
    torch.testing.assert_close(torch.cat([features.cls[:, None], features.registers, features.patches], 1), tokens)


def test_a_masked_patch_is_not_seen() -> None:
    model = MaskedViT(build_vit(TINY, 56)).eval()
    masks = torch.zeros(1, 16, dtype=torch.bool)
    masks[0, 5] = True
    images = torch.randn(1, 3, 56, 56)
    other = images.clone()
    other[:, :, 14:28, 14:28] = 0  # patch 5 is row 1, column 1
    torch.testing.assert_close(model(images, masks).patches, model(other, masks).patches)
    assert not torch.allclose(model(images).patches, model(other).patches)


def test_smaller_crops_get_interpolated_positions() -> None:
    vit = build_vit(TINY, 56)
    grid = torch.linspace(-1, 1, 4)
    ramp = (grid[:, None] + grid[None]).reshape(1, 16, 1).expand(1, 16, 24)
    vit.pos_embed.data = torch.cat([torch.zeros(1, 1, 24), ramp], dim=1)
    tokens = vit._pos_embed(torch.zeros(1, 2, 2, 24))[0, 1:, 0]
    assert tokens[0] < tokens[1] < tokens[3]
    assert torch.allclose(tokens[1], tokens[2])
    assert abs(float(tokens.detach().mean())) < 1e-6


def test_random_init_with_layer_scale_one_tells_images_apart() -> None:
    images = torch.randn(8, 3, 56, 56)

    def spread(backbone: Backbone) -> float:
        torch.manual_seed(0)
        return float(MaskedViT(build_vit(backbone, 56)).eval()(images).cls.detach().std(dim=0).mean())

    small = Backbone(arch=TINY.arch, kwargs=KWARGS, layer_scale=1e-5)
    assert spread(TINY) > 10 * spread(small)


def test_drop_path_is_uniform_and_only_when_asked() -> None:
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in build_vit(TINY, 56, drop_path=0.3).blocks]
    assert rates == [0.3, 0.3]
    assert [getattr(block.drop_path2, "drop_prob", 0.0) for block in build_vit(TINY, 56).blocks] == [0.0, 0.0]


@pytest.mark.parametrize("backbone", [TINY, REGISTERS])
def test_exported_arguments_build_the_same_model(backbone: Backbone) -> None:
    vit = build_vit(backbone, 56)
    again = timm.create_model(backbone.arch, pretrained=False, num_classes=0, **exported_kwargs(backbone, vit))
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in vit.state_dict().items()}


@pytest.mark.parametrize(
    "backbone",
    [
        Backbone(arch="no_such_model"),
        Backbone(arch="resnet18"),
        Backbone(arch="vit_tiny_patch16_224", kwargs={"embed_dim": 25, "num_heads": 2}),
        Backbone(arch="vit_tiny_patch16_224", kwargs={"no_such_argument": 1}),
    ],
)
def test_what_timm_cannot_build_is_one_line(backbone: Backbone) -> None:
    with pytest.raises(ConfigError, match="backbone") as caught:
        build_vit(backbone, 56)
    assert "\n" not in str(caught.value)


def test_crops_must_fit_the_patches() -> None:
    check_sizes(14, global_size=98)
    with pytest.raises(ConfigError, match=r"crops.local_size: 96 px is not a multiple .* 14 px"):
        check_sizes(14, global_size=98, local_size=96)
