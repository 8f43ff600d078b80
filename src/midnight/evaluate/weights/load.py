"""From a path to a model that is ready to be fed."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import VisionTransformer
from timm.models.eva import Eva

from midnight.errors import MidnightError
from midnight.evaluate.entries import Model
from midnight.evaluate.fingerprint import hash_folder
from midnight.evaluate.weights.build import SEED, arguments_of, build_loaded, build_random
from midnight.evaluate.weights.checkpoint import export_checkpoint
from midnight.evaluate.weights.facts import Triple, read_facts
from midnight.evaluate.weights.places import find_files, is_checkpoint, is_export
from midnight.evaluate.weights.rotary import build_rotary, is_rotary
from midnight.hashing import hash_file, hash_value
from midnight.ssl.exports.model_folder import load_model
from midnight.ssl.model.weight_files import State, read_weights
from midnight.ssl.model.weights import to_timm

ViT = VisionTransformer | Eva
USUAL = 224
"""Input size, px, where nothing says which; at most the size of the position embeddings."""


@dataclass(frozen=True)
class Loaded:
    """A model from a file or folder.

    vit: timm's, in eval mode; mean, std: normalisation of images in 0–1; size: input size, px, that it was trained at
    or that its files ask for; hash: of the weights and of all else that the features depend on.
    """

    vit: ViT
    mean: Triple
    std: Triple
    size: int
    hash: str


def load_weights(model: Model, path: Path | None = None) -> Loaded:
    """The model of an entry of source `weights`, or of source `random` the same architecture at random init.

    Args:
        model: the entry: path, and where the folder does not say it arch, kwargs, mean, std.
        path: in place of the entry's.

    Raises:
        MidnightError: there are no weights, they fit no vision transformer, or something can't be told; says what,
            and how to name it.
    """
    path = path or Path(model.path or "")
    if is_checkpoint(path):
        with tempfile.TemporaryDirectory(prefix="midnight-checkpoint-") as scratch:
            export_checkpoint(path, Path(scratch, "model"))
            return _exported(model, Path(scratch, "model"), path)
    return _exported(model, path, path) if is_export(path) else _foreign(model, path)


def _exported(model: Model, folder: Path, path: Path) -> Loaded:
    vit, card = load_model(folder)
    if not isinstance(vit, VisionTransformer):
        raise MidnightError(f"{path}: {card['arch']} is no vision transformer")
    digest = hash_folder(folder)
    if model.source == "random":
        vit, digest = _restart(card).eval(), hash_value([card["arch"], card["kwargs"], "random", SEED])
    try:
        mean, std = _normalisation(model, card["mean"], card["std"], path)
        return Loaded(vit, mean, std, int(card["img_size"]), hash_value([digest, mean, std]))
    except (KeyError, TypeError, ValueError) as error:
        raise MidnightError(f"{path}: model.json: missing or wrong key {error}; export the model again") from error


def _restart(card: Mapping[str, Any]) -> Any:
    """An exported architecture at random init, LayerScale at 1 (see `build_random`)."""
    scale = {"init_values": 1.0} if card["kwargs"].get("init_values") else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return timm.create_model(card["arch"], pretrained=False, num_classes=0, **{**card["kwargs"], **scale})


def _foreign(model: Model, path: Path) -> Loaded:
    place = find_files(path)
    facts = read_facts(place.folder)
    state: State = {}
    for file in place.files:
        state |= read_weights(file)
    try:
        state, _ = to_timm(state)
        random = model.source == "random"
        if is_rotary(state):
            arch = model.arch or facts.arch
            vit: ViT = build_rotary(state, arch, model.kwargs, random)
            arguments = {"arch": arch, **model.kwargs, **_sizes(vit)}
        else:
            arguments = arguments_of(state, facts, model.arch, model.kwargs)
            vit = build_random(arguments) if random else build_loaded(state, arguments)
    except MidnightError as error:
        raise MidnightError(f"{path}: {error}") from error
    mean, std = _normalisation(model, facts.mean, facts.std, path)
    size = facts.size or min(USUAL // arguments["patch_size"] * arguments["patch_size"], arguments["img_size"])
    source = ["random", SEED] if random else [hash_file(file) for file in place.files]
    digest = hash_value([source, {name: str(value) for name, value in arguments.items()}, mean, std])
    return Loaded(vit.eval(), mean, std, size, digest)


def _sizes(vit: ViT) -> dict[str, int]:
    return {"patch_size": vit.patch_embed.patch_size[0], "img_size": vit.patch_embed.img_size[0]}


def _normalisation(model: Model, mean: Any, std: Any, path: Path) -> tuple[Triple, Triple]:
    """The entry's values, else those of the folder.

    Raises:
        MidnightError: neither says them.
    """
    mean, std = model.mean or mean, model.std or std
    if mean is None or std is None:
        missing = " and ".join(name for name, value in (("mean", mean), ("std", std)) if value is None)
        raise MidnightError(
            f"{path}: can't tell the {missing} that images are normalised by; name mean: [0.485, 0.456, 0.406] and "
            "std: [0.229, 0.224, 0.225] (ImageNet's, which DINOv2, UNI and most use) in its entry, or --mean and --std"
        )
    (a, b, c), (d, e, f) = mean, std
    return (float(a), float(b), float(c)), (float(d), float(e), float(f))
