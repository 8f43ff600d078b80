import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.layers import SwiGLUPacked
from torch import Tensor, nn

from midnight.errors import MidnightError
from midnight.evaluate.encoder import load_encoder
from midnight.evaluate.entries import Model
from midnight.evaluate.weights import load_weights
from midnight.ssl.exports.model_folder import load_model
from midnight.ssl.exports.to_hf import write_hf
from midnight.ssl.exports.to_timm import write_timm
from tests.evaluate.weights.published import (
    MEAN,
    PATCH,
    SIDE,
    STD,
    WIDTH,
    hub_state,
    make_hf,
    make_vit,
    write_file,
    write_hf_folder,
    write_timm_folder,
)

IMAGES = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
HALF: Any = (0.5, 0.5, 0.5)
SWIGLU: dict[str, Any] = {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU, "mlp_ratio": 2.66667 * 2}


def entry(path: Path, **keys: Any) -> Model:
    return Model(**({"source": "weights", "label": "W", "sizes": [SIDE], "path": str(path), "name": "w"} | keys))


def tokens_of(path: Path, **keys: Any) -> Tensor:
    return load_encoder(entry(path, **keys), None, SIDE).tokens(IMAGES)


def expect(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model.forward_features(IMAGES) if hasattr(model, "forward_features") else model(IMAGES).last_hidden_state


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    "kwargs",
    [{}, {"reg_tokens": 4, "no_embed_class": True}, SWIGLU],
    ids=["plain", "registers", "swiglu"],
)
def test_files_of_dinov2s_hub(tmp_path: Path, kwargs: dict[str, Any], suffix: str) -> None:
    vit = make_vit(init_values=1.0, **kwargs)
    write_file(tmp_path / f"dinov2{suffix}", hub_state(vit))
    found = tokens_of(tmp_path / f"dinov2{suffix}", mean=HALF, std=HALF)
    assert torch.allclose(found, expect(vit), atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "config"),
    [
        ({}, {}),
        ({"num_heads": 6}, {"num_heads": 6}),
        ({"reg_tokens": 4}, {"reg_tokens": 4}),
        (SWIGLU | {"reg_tokens": 8, "no_embed_class": True}, {}),
    ],
    ids=["uni", "heads", "virchow2", "uni2"],
)
def test_folders_in_timms_form(tmp_path: Path, arguments: dict[str, Any], config: dict[str, Any]) -> None:
    vit = make_vit(init_values=1e-5, **arguments)
    write_timm_folder(vit, tmp_path, "vit_tiny_patch16_224", config)
    loaded = load_weights(entry(tmp_path))
    assert (list(loaded.mean), list(loaded.std), loaded.size) == (MEAN, STD, SIDE)
    assert torch.allclose(tokens_of(tmp_path), expect(vit), atol=1e-4)
    assert torch.allclose(tokens_of(tmp_path / "pytorch_model.bin"), expect(vit), atol=1e-4)


@pytest.mark.parametrize("kind", ["vit", "dinov2", "swiglu", "registers"])
@pytest.mark.parametrize("shard", ["5GB", "1MB"])
def test_folders_of_transformers(tmp_path: Path, kind: str, shard: str) -> None:
    model = make_hf(kind)
    write_hf_folder(model, tmp_path, shard)
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard == "1MB")
    loaded = load_weights(entry(tmp_path))
    assert (list(loaded.mean), list(loaded.std), loaded.size) == (MEAN, STD, 42)
    assert loaded.vit.blocks[0].attn.num_heads == 6
    assert torch.allclose(tokens_of(tmp_path), expect(model), atol=1e-4)


def test_a_bare_bin_of_transformers(tmp_path: Path) -> None:
    """As Phikon's first form, with a prefix and heads that are not part of the backbone."""
    model = make_hf("vit")
    state = {f"vit.{name}": value for name, value in model.state_dict().items()}
    write_file(tmp_path / "phikon.bin", state | {"classifier.weight": torch.zeros(3, WIDTH)})
    found = tokens_of(tmp_path / "phikon.bin", mean=HALF, std=HALF, kwargs={"num_heads": 6})
    assert not torch.allclose(found, expect(model), atol=1e-4)  # its norms have another eps, which no tensor shows
    write_hf_folder(model, tmp_path / "folder")
    (tmp_path / "folder" / "model.safetensors").unlink()
    write_file(tmp_path / "folder" / "pytorch_model.bin", state)
    assert torch.allclose(tokens_of(tmp_path / "folder"), expect(model), atol=1e-4)


def test_a_folder_of_the_hubs_cache(tmp_path: Path) -> None:
    model = make_hf("dinov2")
    cache = tmp_path / "models--a--b"
    write_hf_folder(model, cache / "snapshots" / "abc")
    write_hf_folder(make_hf("vit"), cache / "snapshots" / "def")
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("abc\n")
    assert torch.allclose(tokens_of(cache), expect(model), atol=1e-4)


@pytest.mark.parametrize("registers", [0, 4])
def test_exports_of_this_project(make_model: Callable[[int], Path], tmp_path: Path, registers: int) -> None:
    folder = make_model(registers)
    vit, card = load_model(folder)
    loaded = load_weights(entry(folder))
    assert (loaded.mean, loaded.std, loaded.size) == (HALF, HALF, 28)
    assert torch.equal(tokens_of(folder), expect(vit))
    for write in (write_timm, write_hf):
        write(vit, card, folder, tmp_path / write.__name__)
    heads = {"num_heads": 2}
    assert torch.allclose(tokens_of(tmp_path / "write_timm", kwargs=heads), expect(vit), atol=1e-4)
    assert torch.allclose(tokens_of(tmp_path / "write_hf"), expect(vit), atol=1e-4)


def test_another_input_size_is_interpolated(tmp_path: Path) -> None:
    write_hf_folder(make_hf("registers"), tmp_path)
    encoder = load_encoder(entry(tmp_path), None, 70)
    assert encoder.registers == 4
    assert encoder.tokens(torch.zeros(1, 3, 70, 70)).shape == (1, 5 + 25, WIDTH)
    with pytest.raises(MidnightError, match=r"models\.w\.sizes: doesn't take inputs of 60 px"):
        load_encoder(entry(tmp_path), None, 60)


def test_the_entry_goes_before_the_folder(tmp_path: Path) -> None:
    vit = make_vit(num_heads=12)
    write_timm_folder(vit, tmp_path, "vit_tiny_patch16_224", {})
    named = entry(tmp_path, kwargs={"num_heads": 12}, mean=HALF)
    loaded = load_weights(named)
    assert (loaded.mean, list(loaded.std)) == (HALF, STD)
    assert torch.allclose(load_encoder(named, None, SIDE).tokens(IMAGES), expect(vit), atol=1e-4)
    assert loaded.hash != load_weights(entry(tmp_path, kwargs={"num_heads": 12})).hash
    with pytest.raises(MidnightError, match=r"models\.w\.registers: 3, but the weights have 0"):
        load_encoder(entry(tmp_path, registers=3), None, SIDE)


def test_the_hash_follows_what_is_computed(tmp_path: Path) -> None:
    vit = make_vit()
    write_timm_folder(vit, tmp_path / "a", "vit_tiny_patch16_224", {})
    write_timm_folder(vit, tmp_path / "b", "vit_tiny_patch16_224", {})
    hashes = [load_weights(entry(tmp_path / name)).hash for name in "ab"]
    assert hashes[0] == hashes[1]
    vit.cls_token.data += 1
    write_timm_folder(vit, tmp_path / "b", "vit_tiny_patch16_224", {})
    assert load_weights(entry(tmp_path / "b")).hash != hashes[0]


def test_random_is_the_same_architecture_and_the_same_each_time(tmp_path: Path) -> None:
    vit = make_vit(init_values=1e-5, reg_tokens=4)
    write_timm_folder(vit, tmp_path, "vit_tiny_patch16_224", {})
    first, again = (load_weights(entry(tmp_path, source="random")) for _ in range(2))
    states = [found.vit.state_dict() for found in (first, again)]
    assert {n: v.shape for n, v in states[0].items()} == {n: v.shape for n, v in vit.state_dict().items()}
    assert all(torch.equal(states[1][name], value) for name, value in states[0].items())
    assert not torch.allclose(states[0]["blocks.0.attn.qkv.weight"], vit.blocks[0].attn.qkv.weight, atol=1e-2)
    assert states[0]["blocks.1.ls2.gamma"].tolist() == [1.0] * WIDTH
    assert first.hash == again.hash != load_weights(entry(tmp_path)).hash
    assert (list(first.mean), first.size) == (MEAN, SIDE)


def test_random_of_an_export(make_model: Callable[[int], Path]) -> None:
    first, again = (load_weights(entry(make_model(4), source="random")) for _ in range(2))
    trained, _ = load_model(make_model(4))
    assert torch.equal(first.vit.blocks[0].attn.qkv.weight, again.vit.blocks[0].attn.qkv.weight)
    assert not torch.allclose(first.vit.blocks[0].attn.qkv.weight, trained.blocks[0].attn.qkv.weight, atol=1e-2)
    assert first.hash == again.hash


def test_what_cannot_be_told_is_named_with_its_key(tmp_path: Path) -> None:
    vit = make_vit()
    bare = tmp_path / "w.pth"
    write_file(bare, dict(vit.state_dict()))
    with pytest.raises(MidnightError, match=r"^models\.w: .*w\.pth: can't tell the mean and std .* name mean: \["):
        load_encoder(entry(bare), None, SIDE)
    with pytest.raises(MidnightError, match="can't tell the std that"):
        load_weights(entry(bare, mean=HALF))
    odd = tmp_path / "odd.pth"
    write_file(odd, dict(make_vit(embed_dim=96, num_heads=2).state_dict()))
    both = {"mean": HALF, "std": HALF}
    with pytest.raises(MidnightError, match=r"odd\.pth: the number of attention heads of a model 96 wide .*\(arch:"):
        load_weights(entry(odd, **both))
    assert load_weights(entry(odd, kwargs={"num_heads": 2}, **both)).vit.blocks[0].attn.num_heads == 2
    assert load_weights(entry(bare, arch="vit_tiny_patch16_224", **both)).vit.blocks[0].attn.num_heads == 3
    with pytest.raises(MidnightError, match=r"arch: vit_small_patch16_224 is 384 wide, .* 192 wide"):
        load_weights(entry(bare, arch="vit_small_patch16_224", **both))
    with pytest.raises(MidnightError, match="arch: timm has no 'vit_nothing'"):
        load_weights(entry(bare, arch="vit_nothing", **both))
    with pytest.raises(MidnightError, match="arch: resnet18 is no plain ViT"):
        load_weights(entry(bare, arch="resnet18", **both))


def test_what_is_no_vision_transformer_or_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    both = {"mean": HALF, "std": HALF}
    net = tmp_path / "net.pth"
    write_file(net, {"conv1.weight": torch.zeros(3, 3)})
    with pytest.raises(MidnightError, match=r"net\.pth: no plain vision transformer"):
        load_weights(entry(net, **both))
    state = dict(make_vit().state_dict())
    write_file(net, state | {"blocks.0.lora.weight": torch.zeros(3)})
    with pytest.raises(MidnightError, match=r"unknown blocks\.0\.lora\.weight"):
        load_weights(entry(net, **both))
    del state["norm.bias"]
    write_file(net, state)
    with pytest.raises(MidnightError, match=r"missing norm\.bias"):
        load_weights(entry(net, **both))
    net.write_bytes(b"cut")
    with pytest.raises(MidnightError, match=r"net\.pth: refused, is damaged or"):
        load_weights(entry(net, **both))
    (tmp_path / "code.pth").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(MidnightError, match=r"code\.pth: refused"):
        load_weights(entry(tmp_path / "code.pth", **both))
    assert not (tmp_path / "ran").exists()


class Evil:
    """A pickle that would run code."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("ran"),)


@pytest.mark.parametrize(
    ("text", "words"),
    [("{", "can't be read as JSON"), ("[]", "found list"), ('{"num_attention_heads": "many"}', "of a wrong kind")],
)
def test_a_damaged_config(tmp_path: Path, text: str, words: str) -> None:
    write_timm_folder(make_vit(), tmp_path, "vit_tiny_patch16_224", {})
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(MidnightError, match=words) as caught:
        load_weights(entry(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_bare_files_input_size_is_the_usual_one(tmp_path: Path) -> None:
    write_file(tmp_path / "w.pth", dict(make_vit(img_size=37 * PATCH).state_dict()))
    assert load_weights(entry(tmp_path / "w.pth", mean=HALF, std=HALF)).size == 224
    write_file(tmp_path / "w.pth", dict(make_vit().state_dict()))
    assert load_weights(entry(tmp_path / "w.pth", mean=HALF, std=HALF)).size == SIDE
    assert json.dumps(load_weights(entry(tmp_path / "w.pth", mean=HALF, std=HALF)).hash)
