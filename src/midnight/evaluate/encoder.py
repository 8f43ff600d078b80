"""Frozen encoders: a model of this project, of timm or of eva's registry as images → output tokens."""

import dataclasses
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from midnight.config import choose
from midnight.errors import MidnightError
from midnight.evaluate.entries import Model
from midnight.evaluate.fingerprint import hash_folder, hash_state
from midnight.hashing import hash_file, hash_value
from midnight.ssl.exports.model_folder import load_model

STORED = {"float32": torch.float32, "bfloat16": torch.float16}
"""Precision of the forward pass: dtype that embeddings are stored in.

float16 takes half the disk, and its rounding is a fortieth of the error that a ViT-S makes in bfloat16. Normalised
tokens are far below its limit, 65504; beyond it they would be reported as infinite.
"""

Triple = tuple[float, float, float]


class Tokens(nn.Module):
    """Images float32 [B, 3, S, S] → normalised output tokens [B, 1 + R + N, D]; frozen, always in eval mode."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        for parameter in self.parameters():
            parameter.requires_grad = False
        self.eval()

    def train(self, mode: bool = True) -> "Tokens":
        """Stays in eval mode: stochastic depth or dropout would make the features random."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Output tokens, after the model's final norm."""
        features = getattr(self.model, "forward_features", None)
        tokens: Tensor = features(images) if callable(features) else self.model(images).last_hidden_state
        return tokens


@dataclass(frozen=True)
class Encoder:
    """A frozen model and what is needed to feed it and to read its tokens.

    tokens: see `Tokens`; mean, std: normalisation of images in 0–1; registers: tokens between CLS and patches;
    dim: D; hash: of the weights and of all that the tokens depend on besides the input.
    """

    tokens: Tokens
    mean: Triple
    std: Triple
    registers: int
    dim: int
    hash: str

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.tokens.parameters()).device


def pool(tokens: Tensor, registers: int) -> Tensor:
    """[CLS ‖ mean of the patch tokens]: [B, 2D] from tokens [B, 1 + registers + N, D]; registers are left out."""
    return torch.cat([tokens[:, 0], tokens[:, 1 + registers :].mean(1)], dim=-1)


def embed_images(encoder: Encoder, images: Tensor, precision: str) -> Tensor:
    """[CLS ‖ mean of the patch tokens] of a batch, computed in a precision of `STORED`; on a GPU not waited for.

    Args:
        encoder: the model.
        images: float32 [B, 3, S, S], normalised, on the encoder's device.
        precision: see `pick_precision`.

    Returns:
        [B, 2D] of the dtype that is stored, on the same device.

    Raises:
        MidnightError: the batch doesn't fit the GPU's memory.
    """
    half = torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bfloat16")
    try:
        with torch.inference_mode(), half:
            return pool(encoder.tokens(images).float(), encoder.registers).to(STORED[precision])
    except torch.OutOfMemoryError as error:
        batch = f"{images.shape[0]} images of {images.shape[-1]} px in {precision}"
        raise MidnightError(
            f"evaluation.batch_size: {batch} don't fit the GPU's memory; set it lower, what is done stays"
        ) from error


def patch_map(tokens: Tensor, registers: int) -> Tensor:
    """The patch tokens as a map: [B, D, h, h] from tokens [B, 1 + registers + h², D].

    Raises:
        MidnightError: the patches are no square.
    """
    patches = tokens[:, 1 + registers :].transpose(1, 2)
    side = round(patches.shape[-1] ** 0.5)
    if side * side != patches.shape[-1]:
        raise MidnightError(f"{patches.shape[-1]} patch tokens are no square map: wrong number of registers?")
    return patches.unflatten(2, (side, side))


def model_hash(model: Model, model_dir: Path | None) -> str | None:
    """The hash that `load_encoder` will give, if it is known without loading: for exported folders."""
    folder = own_folder(model, model_dir)
    return hash_folder(folder) if folder else None


def own_folder(model: Model, model_dir: Path | None) -> Path | None:
    """The exported folder of a model of this project; None for models of a zoo.

    Raises:
        MidnightError: there is no such folder.
    """
    zoos: dict[str, Path | None] = dict.fromkeys(LOADERS)
    folders = zoos | {"dir": Path(model.path or ""), "run": model_dir, "init": model_dir}
    folder = choose(model.source, folders, f"models.{model.name}.source")
    if model.source in LOADERS:
        return None
    if folder is None or not folder.is_dir():
        raise MidnightError(f"models.{model.name}: no folder {folder} with teacher.safetensors and model.json")
    return folder


def load_encoder(model: Model, model_dir: Path | None, size: int, weights_dir: str | None = None) -> Encoder:
    """A model as a frozen encoder for inputs of `size` px; position embeddings are interpolated by timm.

    Args:
        model: the entry.
        model_dir: exported folder of a model trained here, else None.
        size: input size, px.
        weights_dir: folder in which weights of registry models are looked for first.

    Raises:
        MidnightError: weights are missing or gated, the card doesn't fit, or the model doesn't take this size.
    """
    folder = own_folder(model, model_dir)
    encoder = _own(model, folder) if folder else LOADERS[model.source](model, weights_dir)
    try:
        shape = encoder.tokens(torch.zeros(1, 3, size, size)).shape
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise MidnightError(f"models.{model.name}.sizes: doesn't take inputs of {size} px: {reason}") from error
    if shape[1] < 2 + encoder.registers or shape[2] != encoder.dim:
        raise MidnightError(f"models.{model.name}.registers: {encoder.registers} doesn't fit {shape[1]} output tokens")
    return encoder


def _own(model: Model, folder: Path) -> Encoder:
    module, card = load_model(folder)
    try:
        mean, std = _triple(card["mean"]), _triple(card["std"])
        registers, dim = int(card["registers"]), int(card["embed_dim"])
    except (KeyError, TypeError, ValueError) as error:
        raise MidnightError(f"{folder / 'model.json'}: missing or wrong key {error}; export the model again") from error
    _check_prefix(module, registers, f"{folder / 'model.json'}: registers")
    return Encoder(Tokens(module), mean, std, registers, dim, hash_folder(folder))


def _triple(value: Any) -> Triple:
    red, green, blue = (float(item) for item in value)
    return red, green, blue


def _weights(model: Model, _: str | None = None, path: Path | None = None) -> Encoder:
    """Weights from a file or folder; `path` goes before the entry's."""
    from midnight.evaluate.weights import load_weights

    try:
        loaded = load_weights(model, path)
    except MidnightError as error:
        raise MidnightError(f"models.{model.name}: {error}") from error
    registers = loaded.vit.num_prefix_tokens - 1
    if model.registers and model.registers != registers:
        raise MidnightError(f"models.{model.name}.registers: {model.registers}, but the weights have {registers}")
    return Encoder(Tokens(loaded.vit), loaded.mean, loaded.std, registers, loaded.vit.embed_dim, loaded.hash)


def _colour(*_: Any) -> Encoder:
    """Colour statistics in a model's place; the hash is of the code, which is all there is."""
    from midnight.evaluate import colour

    code = hash_file(Path(colour.__file__))[:16]
    return Encoder(Tokens(colour.ColourStatistics()), colour.MEAN, colour.STD, 0, colour.DIM, code)


def _zoo(model: Model, weights_dir: str | None = None) -> Encoder:
    if stored := _stored(model, weights_dir):
        return _weights(dataclasses.replace(model, kwargs={}), path=stored)  # those are for its library
    try:
        module = ZOOS[model.source](model)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise MidnightError(f"models.{model.name}: {model.model_name} can't be loaded: {reason}") from error
    _check_prefix(module, model.registers, f"models.{model.name}.registers")
    assert model.mean is not None and model.std is not None  # noqa: S101 (checked by the registry)
    # The arguments too: an activation or a number of heads changes what the same weights compute.
    source = [model.source, model.model_name, model.kwargs]
    weights = hash_value([hash_state(module.state_dict()), model.mean, model.std, model.registers, *source])
    width: Any = getattr(module, "embed_dim", None) or getattr(module, "config").hidden_size  # noqa: B009
    dim = int(width)
    return Encoder(Tokens(module), model.mean, model.std, model.registers, dim, weights)


def _stored(model: Model, weights_dir: str | None) -> Path | None:
    """A local copy of a registry model's weights, if it is to be read: one in `weights_dir`, or the cache's without
    which a token would be needed. None where the model's own library fetches them.

    Raises:
        MidnightError: there is no copy, and the weights are gated and there is no token.
    """
    from midnight.evaluate.weights import find_stored
    from midnight.evaluate.weights.places import cache_folder

    if weights_dir and (found := find_stored([Path(weights_dir)], model.name, model.repo)):
        return found
    if not model.gate or os.environ.get("HF_TOKEN"):
        return None
    if found := find_stored([cache_folder()], model.name, model.repo):
        return found
    looked = f"{weights_dir or 'evaluation.weights_dir (not set)'} or {cache_folder()}"
    raise MidnightError(
        f"models.{model.name}: its weights need a licence: ask at {model.gate}, then set HF_TOKEN to your token; "
        f"or put them as {model.name} or {model.repo or 'a snapshot'} into {looked}, where there are none now"
    )


def _timm(model: Model) -> nn.Module:
    import timm

    options = {"pretrained": True, "num_classes": 0, "dynamic_img_size": True} | model.kwargs
    return timm.create_model(str(model.model_name), **options)


def _eva(model: Model) -> nn.Module:
    from eva.vision.models.wrappers import ModelFromRegistry

    module: nn.Module = ModelFromRegistry(str(model.model_name), model_kwargs=model.kwargs)
    for inner in _unwrap(module):
        module = inner
    return module


ZOOS: dict[str, Callable[[Model], nn.Module]] = {"timm": _timm, "eva": _eva}
LOADERS: dict[str, Callable[[Model, str | None], Encoder]] = {
    "timm": _zoo,
    "eva": _zoo,
    "weights": _weights,
    "random": _weights,
    "colour": _colour,
}
"""Sources of models that are in no folder of ours, as functions of the entry and of `evaluation.weights_dir`."""


def _unwrap(module: nn.Module) -> Iterator[nn.Module]:
    """eva's wrappers hold the model as `.model`; its output transforms are left behind with them."""
    from eva.core.models.wrappers.base import BaseModel

    while isinstance(module, BaseModel):
        module = module.model
        yield module


def _check_prefix(module: nn.Module, registers: int, where: str) -> None:
    prefix = getattr(module, "num_prefix_tokens", None)
    if prefix is not None and prefix != 1 + registers:
        raise MidnightError(f"{where}: {registers}, but the model has {prefix - 1} register tokens")


def pick_device(accelerator: str) -> torch.device:
    """The device for `evaluation.accelerator`: auto, cpu or gpu.

    Raises:
        MidnightError: a GPU is asked for and there is none.
    """
    gpu = torch.cuda.is_available()
    if accelerator == "gpu" and not gpu:
        raise MidnightError("evaluation.accelerator: gpu, but torch sees no GPU; use auto or cpu")
    devices = {"auto": "cuda" if gpu else "cpu", "cpu": "cpu", "gpu": "cuda"}
    return torch.device(choose(accelerator, devices, "evaluation.accelerator"))


def pick_precision(device: torch.device, kind: str) -> str:
    """A task's precision: bfloat16 on GPUs that compute in it, but float32 for HEST, as its protocol asks.

    float32 is torch's: on Ampere and later, the convolution that embeds patches rounds to TF32, as in HEST's own runs.
    """
    if device.type != "cuda" or kind == "hest" or not torch.cuda.is_bf16_supported(including_emulation=False):
        return "float32"
    return "bfloat16"
