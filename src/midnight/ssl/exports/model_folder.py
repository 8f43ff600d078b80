"""A teacher's weights as a folder that plain timm loads."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from timm.models import VisionTransformer
from torch import Tensor, nn

from midnight.atomic import atomic_path, write_json
from midnight.config import Recipe, plain
from midnight.errors import MidnightError
from midnight.provenance import provenance
from midnight.ssl.checkpoint.run_key import SEGMENTS
from midnight.ssl.model.network import build_student

WEIGHTS, CARD, HEADS = "teacher.safetensors", "model.json", "heads.safetensors"


def model_card(recipe: Recipe, vit: VisionTransformer, step: int, data: str) -> dict[str, Any]:
    """What is needed to build and feed the model: architecture, sizes, normalisation, recipe, data."""
    from midnight.ssl.model.backbone import exported_kwargs

    return {
        "arch": recipe.backbone.arch,
        "kwargs": exported_kwargs(recipe.backbone, vit),
        "img_size": recipe.crops.global_size,
        "patch_size": vit.patch_embed.patch_size[0],
        "embed_dim": vit.embed_dim,
        "registers": vit.num_reg_tokens,
        # Of sizes other than img_size: local crops saw the one, what loads this folder (timm, eva) does the other.
        "pos_interpolation": {"training": recipe.backbone.pos_interpolation, "evaluation": "antialias"},
        "mean": list(recipe.crops.mean),
        "std": list(recipe.crops.std),
        "recipe": recipe.name,
        "step": step,
        "data": data,
    }


def of_heads(tensors: Mapping[str, Tensor], role: str = "") -> dict[str, Tensor]:
    """Of a teacher's tensors by name those that a post-training goes on with: the heads and the mask token.

    Args:
        tensors: also of others.
        role: before the teacher's names, which the result is without.
    """
    own = {name.removeprefix(role): name for name in tensors if name.startswith(role)}
    return {name: tensors[long] for name, long in own.items() if not name.startswith(("backbone.vit.", "centres."))}


def save_weights(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors, atomically.

    Raises:
        MidnightError: the disk is full or the folder can't be written.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    with atomic_path(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={"format": "pt"})
        except SafetensorError as error:
            raise MidnightError(f"{path}: can't be written: {error}") from error


def export_teacher(
    vit: VisionTransformer,
    recipe: Recipe,
    output: Path,
    step: int,
    data: str,
    inputs: Mapping[str, Path] | None = None,
    segments: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write `teacher.safetensors` (timm's keys, float32) and `model.json`.

    Args:
        vit: the teacher's vision transformer.
        recipe: what it was trained by.
        output: the run's folder.
        step: micro-steps done.
        data: `real` or `demo`.
        inputs: files whose hashes go into the provenance, by role.
        segments: what was done before with other values than the recipe's, see `midnight.ssl.checkpoint.segments`.

    Raises:
        MidnightError: the files can't be written.
    """
    save_weights(output / WEIGHTS, vit.state_dict())
    card = model_card(recipe, vit, step, data) | ({SEGMENTS: list(segments)} if segments else {})
    write_json(output / CARD, card | {"provenance": provenance(plain(recipe), inputs)})


def init_model(recipe: Recipe, output: Path, data: str) -> None:
    """Write the model at random init, the one that a run of this architecture and seed starts from.

    Raises:
        MidnightError: the recipe's backbone can't be built, or the files can't be written.
    """
    student = build_student(recipe)
    export_teacher(student.backbone.vit, recipe, Path(output), 0, data)


def load_model(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """A model that this project exported, by plain timm in eval mode, and its card.

    Raises:
        MidnightError: a file is missing or damaged, or the weights don't fit the card.
    """
    folder = Path(folder)
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        model = timm.create_model(card["arch"], pretrained=False, num_classes=0, **card["kwargs"])
        model.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise MidnightError(f"{folder}: no usable {CARD} and {WEIGHTS}: {reason}") from error
    return model.eval(), card
