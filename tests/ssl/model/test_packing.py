"""Crops that go through the blocks together come out as if each size had gone alone."""

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block, ParallelScalingBlock
from torch import Tensor, nn

from midnight.config import Backbone
from midnight.errors import ConfigError
from midnight.ssl.model import attention, blocks
from midnight.ssl.model.backbone import Features, MaskedViT, build_vit
from midnight.ssl.model.packing import Group, pack, unpack

SMALL: dict[str, Any] = {"patch_size": 7, "embed_dim": 32, "depth": 3, "num_heads": 4}
PLAIN = Backbone(arch="vit_tiny_patch16_224", kwargs=SMALL)
BACKBONES = {
    "plain": PLAIN,
    "layer scale": Backbone(arch="vit_tiny_patch16_224", kwargs=SMALL, layer_scale=0.7),
    "qk norm": Backbone(arch="vit_tiny_patch16_224", kwargs=SMALL | {"qk_norm": True, "scale_attn_norm": True}),
    "registers": Backbone(arch="vit_small_patch14_reg4_dinov2", kwargs=SMALL, layer_scale=0.5),
    "SwiGLU": Backbone(arch="vit_giant_patch14_reg4_dinov2", kwargs=SMALL, layer_scale=0.5),
}
every_backbone = pytest.mark.parametrize("backbone", BACKBONES.values(), ids=BACKBONES)


def build(backbone: Backbone = PLAIN, drop_path: float = 0.0, **arguments: Any) -> MaskedViT:
    torch.manual_seed(0)
    return MaskedViT(build_vit(backbone, 28, drop_path), **arguments).train()


def inputs() -> tuple[list[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(1)
    crops = [torch.randn(4, 3, 28, 28, generator=generator), torch.randn(6, 3, 14, 14, generator=generator)]
    return crops, torch.rand(4, 16, generator=generator) < 0.4


def flat(features: list[Features]) -> Tensor:
    return torch.cat([part.flatten() for each in features for part in (each.cls, each.registers, each.patches)])


def run(model: MaskedViT, separate: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
    """All output tokens, and the gradients of a sum that weighs each by something else."""
    crops, masks = inputs()
    out = flat([model(crops[0], masks), model(crops[1])] if separate else model(crops, masks))
    model.zero_grad()
    (out * torch.sin(torch.arange(len(out)))).sum().backward()
    return out.detach(), {
        name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None
    }


def assert_same(ours: tuple[Tensor, dict[str, Tensor]], expected: tuple[Tensor, dict[str, Tensor]]) -> None:
    torch.testing.assert_close(ours[0], expected[0], atol=1e-5, rtol=1e-5)
    assert ours[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        scale = float(gradient.abs().max().clamp_min(1))
        torch.testing.assert_close(ours[1][name] / scale, gradient / scale, atol=1e-5, rtol=1e-5, msg=name)


def test_what_is_packed_can_be_unpacked() -> None:
    groups = [torch.randn(2, 5, 3), torch.randn(4, 2, 3)]
    packed, layout = pack(groups)
    assert packed.shape == (18, 3) and layout == (Group(2, 5), Group(4, 2))
    assert all(torch.equal(a, b) for a, b in zip(unpack(packed, layout), groups, strict=True))


@every_backbone
def test_packed_outputs_and_gradients_are_those_of_separate_passes(backbone: Backbone) -> None:
    model = build(backbone)
    ours = run(model)
    assert len(ours[1]) == len(list(model.parameters()))
    assert_same(ours, run(model, separate=True))


@every_backbone
def test_the_names_of_parameters_are_timms(backbone: Backbone) -> None:
    names = set(build_vit(backbone, 28).state_dict())
    assert set(build(backbone).vit.state_dict()) == names


def test_a_crop_is_not_changed_by_the_others() -> None:
    model = build(BACKBONES["SwiGLU"])
    (globals_, locals_), masks = inputs()
    alone = model([globals_, locals_], masks)[1].cls
    beside = model([globals_ + 1, torch.cat([locals_[:1], locals_[1:] * 2])], masks)[1].cls
    torch.testing.assert_close(beside[0], alone[0])
    assert not torch.allclose(beside[1], alone[1])


def test_evaluation_drops_nothing() -> None:
    model = build(drop_path=0.5).eval()
    torch.testing.assert_close(run(model)[0], run(build())[0])


def test_seed_decides_which_samples_drop_a_branch() -> None:
    model = build(drop_path=0.5)
    outputs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outputs.append(run(model)[0])
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.allclose(outputs[0], outputs[2])


@pytest.mark.parametrize("drop_path", [0.0, 0.4])
@every_backbone
def test_activation_checkpointing_changes_no_number(backbone: Backbone, drop_path: float) -> None:
    found = []
    for checkpointing in (False, True):
        model = build(backbone, drop_path, checkpointing=checkpointing)
        torch.manual_seed(5)
        found.append(run(model))
    assert torch.equal(found[0][0], found[1][0])
    assert_same(found[1], found[0])


def test_activation_checkpointing_keeps_no_activations_of_a_block() -> None:
    kept = []
    for checkpointing in (False, True):
        sizes: list[int] = []
        model = build(checkpointing=checkpointing)
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=sizes: (s.append(t.numel()), t)[1], lambda t: t):
            model(inputs()[0])
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 3


def test_activation_checkpointing_works_in_separate_passes_with_dropped_paths() -> None:
    found = []
    for checkpointing in (False, True):
        model = build(drop_path=0.4, checkpointing=checkpointing)
        torch.manual_seed(5)
        found.append(run(model, separate=True))
    assert_same(found[1], found[0])


@pytest.mark.parametrize("drop_path", [0.0, 0.4])
def test_compiled_blocks_compute_the_same(monkeypatch: pytest.MonkeyPatch, drop_path: float) -> None:
    monkeypatch.setattr(blocks, "BACKEND", "aot_eager")
    model = build(BACKBONES["SwiGLU"], drop_path)
    compiled = build(BACKBONES["SwiGLU"], drop_path)
    compiled.compile_blocks()
    found = []
    for each in (model, compiled):
        torch.manual_seed(5)
        found.append(run(each))
    assert compiled.compiled and set(compiled.state_dict()) == set(model.state_dict())
    assert_same(found[1], found[0])


def test_without_a_compiler_compiling_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks.torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match=r"training\.compile: .* no-such-compiler"):
        build().compile_blocks()


def test_other_blocks_than_timms_plain_ones_go_one_size_after_the_other() -> None:
    vit = build_vit(PLAIN, 28)
    vit.blocks = nn.Sequential(*[ParallelScalingBlock(32, 4) for _ in range(2)])
    model = MaskedViT(vit)
    assert not model.packable and type(vit.blocks[0]) is ParallelScalingBlock
    assert_same(run(model), run(model, separate=True))


def test_a_block_takes_unpacked_tokens_as_timms_does() -> None:
    block = build(BACKBONES["SwiGLU"]).vit.blocks[0]
    tokens = torch.randn(2, 5, 32)
    torch.testing.assert_close(block(tokens), Block.forward(block, tokens))


def emulate_xformers(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """Its kernels need a GPU; a stand-in of the same signature computes densely with the mask it is given.

    Returns:
        The shapes of its queries, call by call.
    """
    fmha = pytest.importorskip("xformers.ops.fmha")
    calls: list[torch.Size] = []

    def dense(q: Tensor, k: Tensor, v: Tensor, attn_bias: Any, p: float) -> Tensor:
        calls.append(q.shape)
        mask = attn_bias.materialize((1, 1, q.shape[1], k.shape[1])).to(q.dtype)
        return F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)), mask, p).transpose(1, 2)

    ops = ModuleType("xformers.ops")
    ops.memory_efficient_attention, ops.fmha = dense, fmha  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "xformers.ops", ops)
    monkeypatch.setattr("xformers.ops", ops)
    return calls


@pytest.mark.parametrize("drop_path", [0.0, 0.4])
def test_xformers_gets_what_block_diagonal_attention_needs(monkeypatch: pytest.MonkeyPatch, drop_path: float) -> None:
    model = build(BACKBONES["qk norm"], drop_path)
    torch.manual_seed(5)
    expected = run(model)
    calls = emulate_xformers(monkeypatch)
    monkeypatch.setattr(attention, "_use_xformers", lambda x: True)
    torch.manual_seed(5)
    assert_same(run(model), expected)
    tokens = 4 * 17 + 6 * 5 if drop_path == 0 else 2 * 17 + 3 * 5
    assert calls == [(1, tokens, 4, 8)] * 3


def test_whether_xformers_works_is_found_out_outside_of_checkpointing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small backward pass that tells would be counted as the block's: the recomputation then lacks its tensors."""
    expected = run(build())
    calls = emulate_xformers(monkeypatch)
    monkeypatch.setattr(attention, "XFORMERS_ON", {"cpu"})
    attention.xformers_works.cache_clear()
    try:
        assert_same(run(build(checkpointing=True)), expected)
    finally:
        attention.xformers_works.cache_clear()
    assert calls[0] == (1, 3, 1, 8) and len(calls) == 1 + 2 * 3


def test_where_xformers_has_no_kernels_torch_does_the_attention(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("xformers")
    attention.xformers_works.cache_clear()
    for _ in range(2):
        assert not attention.xformers_works(torch.device("cpu"), torch.float32, 8)
    assert [record.getMessage().startswith("attention by torch") for record in caplog.records] == [True]


def test_where_xformers_cannot_be_imported_it_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("xformers")
    attention.xformers_works.cache_clear()
    monkeypatch.setitem(sys.modules, "xformers.ops", None)
    assert not attention.xformers_works(torch.device("cpu"), torch.float32, 8)
    (record,) = caplog.records
    assert f"can't be imported, install its release for torch {torch.__version__}" in record.getMessage()


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), ImportError("within a kernel")])
def test_no_other_error_is_taken_for_a_lack_of_kernels(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    pytest.importorskip("xformers")
    attention.xformers_works.cache_clear()

    def fail(*_: Any) -> Tensor:
        raise error

    monkeypatch.setattr(attention, "_xformers", fail)
    with pytest.raises(type(error)):
        attention.xformers_works(torch.device("cpu"), torch.float32, 8)
