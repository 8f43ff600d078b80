"""Position tables at other sizes: DINOv2's way against its formula written anew, and timm's."""

import math

import pytest
import timm
import torch
from timm.models import VisionTransformer
from torch import Tensor

from midnight.config import Backbone, load_recipe
from midnight.errors import ConfigError
from midnight.ssl.model.backbone import MaskedViT, build_vit
from midnight.ssl.model.network import build_student
from midnight.ssl.model.positions import antialias, offset
from midnight.ssl.model.weights import interpolate_positions, load_backbone
from tests.ssl.tiny import tiny_recipe

PLAIN = Backbone(arch="vit_tiny_patch16_224", kwargs={"patch_size": 14, "embed_dim": 32, "depth": 1, "num_heads": 2})
REGISTERS = Backbone(
    arch="vit_small_patch14_reg4_dinov2",
    kwargs={"embed_dim": 32, "depth": 1, "num_heads": 2, "reg_tokens": 4},
    layer_scale=1.0,
)


def cubic(distance: float) -> float:
    """Keys' kernel with a = -0.75, as torch's bicubic has it."""
    x, a = abs(distance), -0.75
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def matrix(side: int, new: int) -> Tensor:
    """How DINOv2 weighs a table's `side` rows in each of `new`: at (i + .5) · side / (new + .1) - .5, borders kept."""
    weights = torch.zeros(new, side, dtype=torch.float64)
    for i in range(new):
        centre = (i + 0.5) * side / (new + 0.1) - 0.5
        for row in range(math.floor(centre) - 1, math.floor(centre) + 3):
            weights[i, min(max(row, 0), side - 1)] += cubic(centre - row)
    return weights


@pytest.mark.parametrize(("side", "new"), [(16, 7), (37, 16), (16, 28), (7, 3)])
@pytest.mark.parametrize("prefix", [0, 1])
def test_offset_is_dinov2s_formula(side: int, new: int, prefix: int) -> None:
    table = torch.randn(1, prefix + side * side, 5)
    expected = torch.einsum("ir,js,rsd->ijd", matrix(side, new), matrix(side, new), grid_of(table, prefix).double())
    ours = offset(table, (new, new), prefix)
    torch.testing.assert_close(ours[:, :prefix], table[:, :prefix], atol=0, rtol=0)
    torch.testing.assert_close(grid_of(ours, prefix).double(), expected, atol=2e-5, rtol=0)


def grid_of(table: Tensor, prefix: int) -> Tensor:
    side = math.isqrt(table.shape[1] - prefix)
    return table[0, prefix:].unflatten(0, (side, side))


def test_the_two_ways_differ_at_other_sizes_only() -> None:
    table = torch.randn(1, 1 + 16 * 16, 8)
    assert offset(table, (16, 16), 1) is table
    torch.testing.assert_close(antialias(table, (16, 16), 1), table)
    ours, timms = offset(table, (7, 7), 1)[:, 1:], antialias(table, (7, 7), 1)[:, 1:]
    assert float((ours - timms).norm() / timms.norm()) > 0.3


@pytest.mark.parametrize("backbone", [PLAIN, REGISTERS])
@pytest.mark.parametrize("size", [56, 28, 84])
def test_positions_are_added_as_timm_adds_them(backbone: Backbone, size: int) -> None:
    vit = build_vit(backbone, 56).eval()
    torch.nn.init.normal_(vit.pos_embed)
    images = torch.randn(2, 3, size, size)
    expected = vit.forward_features(images)
    plain, own = MaskedViT(vit).eval(), MaskedViT(vit, pos_interpolation="offset").eval()
    torch.testing.assert_close(plain(images).cls, expected[:, 0])
    if size == 56:
        torch.testing.assert_close(own(images).cls, expected[:, 0])
        return
    with torch.no_grad():  # timm, given the table that DINOv2 would make
        prefix = 0 if vit.no_embed_class else 1
        table = offset(vit.pos_embed, (size // 14, size // 14), prefix)
        other = build_vit(backbone, size).eval()
        other.load_state_dict(vit.state_dict() | {"pos_embed": table})
        torch.testing.assert_close(own(images).cls, other.forward_features(images)[:, 0])
        assert not torch.allclose(own(images).cls, expected[:, 0], atol=1e-5)


def test_the_table_is_trained_through_the_resize() -> None:
    model = MaskedViT(build_vit(PLAIN, 56), pos_interpolation="offset")
    model(torch.randn(1, 3, 28, 28)).cls.square().sum().backward()
    gradient = model.vit.pos_embed.grad
    assert gradient is not None and bool((gradient[:, 1:] != 0).any())


def test_a_recipe_says_how_its_student_is_trained_and_how_weights_are_taken_over() -> None:
    student = build_student(tiny_recipe(backbone={"pos_interpolation": "offset"}))
    assert student.backbone.resize is offset
    assert build_student(tiny_recipe(backbone={"pos_interpolation": "antialias"})).backbone.resize is antialias
    vit = build_vit(PLAIN, 84)
    for name, resize in (("offset", offset), ("antialias", antialias)):
        model = MaskedViT(build_vit(PLAIN, 56), pos_interpolation=name)
        load_backbone(model, dict(vit.state_dict()), "a file")
        torch.testing.assert_close(model.vit.pos_embed.data, resize(vit.pos_embed, (4, 4), 1).data)
    torch.testing.assert_close(interpolate_positions(model.vit, vit.pos_embed), antialias(vit.pos_embed, (4, 4), 1))


def test_the_papers_recipe_is_trained_as_dinov2_and_openmidnights_as_its_code() -> None:
    assert load_recipe("midnight-12k").backbone.pos_interpolation == "offset"
    assert load_recipe("openmidnight").backbone.pos_interpolation == "antialias"


def test_other_models_positions_are_refused() -> None:
    vit = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=0, depth=1, embed_dim=24, num_heads=2)
    assert isinstance(vit, VisionTransformer)
    with pytest.raises(ConfigError, match="pos_interpolation: VisionTransformerDistilled has its own position table"):
        MaskedViT(vit, pos_interpolation="offset")
    MaskedViT(vit)
