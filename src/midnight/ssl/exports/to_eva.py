"""kaiko-eva's: weights, and the `backbone:` of an eva configuration that loads them."""

from pathlib import Path
from typing import Any

import yaml
from timm.models import VisionTransformer

from midnight.atomic import write_text
from midnight.ssl.exports.model_folder import save_weights

WEIGHTS = "model.safetensors"
TRANSFORMS = {"classification": "ExtractCLSFeatures", "segmentation": "ExtractPatchFeatures"}
HEADER = """# The backbone of {name} for kaiko-eva: replaces `backbone:` in eva's configuration of a {task} task.
# Normalise images by mean {mean} and std {std}; size {size} px, or any multiple of {patch}.
"""


def backbone(vit: VisionTransformer, card: dict[str, Any], weights: Path, task: str) -> dict[str, Any]:
    """eva's TimmModel that gives all normalised output tokens, and the transform that picks those of the task.

    Args:
        vit: the model.
        card: its model.json.
        weights: the safetensors file, absolute.
        task: `classification` (CLS token [B, D]) or `segmentation` (a list of one map [B, D, h, w]).
    """
    transform = {
        "class_path": f"eva.core.models.transforms.{TRANSFORMS[task]}",
        "init_args": {"num_register_tokens": vit.num_reg_tokens},
    }
    arguments = {
        "model_name": card["arch"],
        "checkpoint_path": str(weights),
        "model_kwargs": {**card["kwargs"], "num_classes": 0, "global_pool": ""},
        "transforms": transform,
    }
    return {"class_path": "eva.vision.models.wrappers.TimmModel", "init_args": arguments}


def write_eva(vit: VisionTransformer, card: dict[str, Any], run: Path, output: Path) -> None:
    """Write model.safetensors, classification.yaml and segmentation.yaml, which name it by its absolute path.

    Raises:
        MidnightError: the folder can't be written.
    """
    weights = (output / WEIGHTS).resolve()
    save_weights(weights, vit.state_dict())
    sizes = {"mean": card["mean"], "std": card["std"], "size": card["img_size"], "patch": card["patch_size"]}
    for task in TRANSFORMS:
        header = HEADER.format(name=run.resolve().name, task=task, **sizes)
        block = {"backbone": backbone(vit, card, weights, task)}
        write_text(output / f"{task}.yaml", header + yaml.safe_dump(block, sort_keys=False))
