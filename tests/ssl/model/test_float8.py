"""Products of 8-bit floats on the CPU: torch computes there what a Hopper GPU does."""

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from midnight.errors import ConfigError
from midnight.ssl.model.float8 import BACKWARD, FORWARD, Float8Linear, multiply, scaled, transposed, use_float8
from tests.ssl.tiny import tiny_recipe, train_tiny

CPU = torch.device("cpu")


def values(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


def back(pair: tuple[Tensor, Tensor]) -> Tensor:
    return pair[0].float() * pair[1]


@pytest.mark.parametrize("magnitude", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize(("dtype", "bits"), [(FORWARD, 3), (BACKWARD, 2)])
def test_scaling_uses_the_whole_range_and_rounds_to_the_mantissa(
    dtype: torch.dtype, bits: int, magnitude: float
) -> None:
    x = values(64, 32, scale=magnitude)
    eighth, scale = scaled(x, dtype)
    assert eighth.float().abs().max() == torch.finfo(dtype).max
    large = x.abs() > x.abs().max() / 100  # smaller ones may fall below the format's normal numbers
    assert ((back((eighth, scale)) - x).abs() / x.abs())[large].max() <= 2.0 ** -(bits + 1) * 1.001


def test_zeros_stay_zeros() -> None:
    assert torch.equal(back(scaled(torch.zeros(4, 16), FORWARD)), torch.zeros(4, 16))


@pytest.mark.parametrize("rows", [1, 7, 16, 33])
def test_products_are_those_of_the_rounded_numbers(rows: int) -> None:
    a, b = scaled(values(rows, 48), FORWARD), scaled(values(32, 48, seed=1), FORWARD)
    torch.testing.assert_close(multiply(a, b, torch.float32), back(a) @ back(b).T, rtol=1e-4, atol=1e-4)
    c, d = scaled(values(rows, 32), BACKWARD), scaled(values(rows, 48, seed=2), FORWARD)
    torch.testing.assert_close(
        multiply(transposed(c), transposed(d), torch.float32), back(c).T @ back(d), rtol=1e-4, atol=1e-4
    )


def grads(layer: nn.Linear, x: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    out = layer(x)
    out.backward(values(*out.shape, seed=5))
    assert x.grad is not None and layer.weight.grad is not None and layer.bias.grad is not None
    return [out.detach(), x.grad, layer.weight.grad, layer.bias.grad]


def test_a_layer_and_its_gradients_are_close_to_exact_ones() -> None:
    torch.manual_seed(0)
    exact = nn.Linear(64, 96)
    coarse = copy.deepcopy(exact)
    use_float8(wrapped := nn.Sequential(coarse), CPU)
    assert type(wrapped[0]) is Float8Linear
    x = values(2, 9, 64)
    for ours, theirs in zip(grads(coarse, x), grads(exact, x), strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
        assert torch.nn.functional.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) > 0.998
        assert 0 <= (ours - theirs).norm() / theirs.norm() < 0.08
    assert not torch.equal(coarse(x), exact(x))


def test_names_stay_and_sizes_are_checked() -> None:
    block = nn.ModuleDict({"fc": nn.Linear(32, 16), "norm": nn.LayerNorm(16)})
    before = list(block.state_dict())
    use_float8(block, CPU)
    assert list(block.state_dict()) == before
    with pytest.raises(ConfigError, match=r"float8 needs multiples of 16, 0 is 24 × 16"):
        use_float8(nn.Sequential(nn.Linear(24, 16)), CPU)


def test_older_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA A100")
    with pytest.raises(
        ConfigError, match="float8 needs a GPU of Hopper's kind or newer, not NVIDIA A100; say bfloat16"
    ):
        use_float8(nn.Sequential(nn.Linear(16, 16)), torch.device("cuda"))


def losses(output: Path, precision: str) -> list[float]:
    backbone = {"kwargs": {"embed_dim": 32, "depth": 2, "num_heads": 2, "patch_size": 7}, "drop_path": 0.2}
    recipe = tiny_recipe(backbone=backbone, training={"precision": precision, "iterations": 20})
    train_tiny(output, recipe)
    return [json.loads(line)["loss"] for line in (output / "metrics.jsonl").read_text().splitlines()]


def test_training_goes_the_same_way(tmp_path: Path) -> None:
    exact, coarse = losses(tmp_path / "a", "float32"), losses(tmp_path / "b", "float8")
    assert len(exact) == len(coarse) == 20 and exact != coarse
    assert max(abs(a - b) / a for a, b in zip(exact, coarse, strict=True)) < 0.02
