"""timm's folder: `timm.create_model("local-dir:FOLDER", pretrained=True)`, or the same files on Hugging Face's hub."""

from pathlib import Path
from typing import Any

from timm.models import VisionTransformer

from midnight.atomic import write_json
from midnight.ssl.exports.model_folder import save_weights

WEIGHTS, CONFIG = "model.safetensors", "config.json"


def timm_config(vit: VisionTransformer, card: dict[str, Any]) -> dict[str, Any]:
    """The content of config.json: architecture, arguments and preprocessing."""
    return {
        "architecture": card["arch"],
        "num_classes": 0,
        "num_features": vit.num_features,
        "global_pool": vit.global_pool,
        "pretrained_cfg": {
            "input_size": [3, card["img_size"], card["img_size"]],
            "fixed_input_size": False,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "mean": card["mean"],
            "std": card["std"],
            "num_classes": 0,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
            "custom_load": False,
        },
        "model_args": card["kwargs"],
    }


def write_timm(vit: VisionTransformer, card: dict[str, Any], run: Path, output: Path) -> None:
    """Write model.safetensors (timm's keys, float32) and config.json; `run` is not needed.

    Raises:
        MidnightError: the folder can't be written.
    """
    save_weights(output / WEIGHTS, vit.state_dict())
    write_json(output / CONFIG, timm_config(vit, card))
