"""Checkpoints as other trainings write them, and files that are none."""

import argparse
import fractions
from pathlib import Path
from typing import Any

import pytest
import torch

from midnight.errors import ConfigError
from midnight.ssl.model.backbone import MaskedViT, build_vit
from midnight.ssl.model.weight_files import read_weights
from midnight.ssl.model.weights import load_backbone
from tests.ssl.model.test_positions import PLAIN


def weights(prefix: str = "") -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    return {f"{prefix}{name}": value for name, value in build_vit(PLAIN, 28).state_dict().items()}


def wrapped(name: str) -> str:
    """As FSDP, torch.compile and checkpointing name a block's weights."""
    return name.replace("blocks.0.", "_fsdp_wrapped_module.blocks.0._orig_mod._checkpoint_wrapped_module.")


CHECKPOINTS: dict[str, dict[str, Any]] = {
    "DINOv2's, with its options": {
        "model": weights("student.backbone.") | weights("teacher.backbone.") | {"teacher.dino_head.w": torch.ones(1)},
        "iteration": 12,
        "args": argparse.Namespace(arch="vit", lr=1e-3),
    },
    "OpenMidnight's teacher": {"teacher": weights("backbone.") | {"dino_head.w": torch.ones(1)}},
    "sharded": {"teacher": {wrapped(name): value for name, value in weights("backbone.").items()}},
    "compiled": {f"_orig_mod.{name}": value for name, value in weights().items()},
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_other_trainings_checkpoints_load(name: str, tmp_path: Path) -> None:
    content = CHECKPOINTS[name]
    if "model" in content:  # the student's are others
        content["model"] = {key: value + key.startswith("student.") for key, value in content["model"].items()}
    torch.save(content, tmp_path / "w.pth")
    model = MaskedViT(build_vit(PLAIN, 28))
    load_backbone(model, read_weights(tmp_path / "w.pth"), "test")
    for key, value in weights().items():
        torch.testing.assert_close(model.vit.state_dict()[key], value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<!DOCTYPE html><html>log in</html>", "is an HTML page, not weights"),
        (b"\n<html>", "is an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "is a pointer of Git LFS"),
        (b"PK\x03\x04 cut off", "not readable as weights|refused, is damaged"),
        (b"", "not readable as weights"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_is_no_file_of_weights_is_said(content: bytes, said: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"w{suffix}: ({said})"):
        read_weights(path)


def test_a_type_that_could_run_code_is_named(tmp_path: Path) -> None:
    torch.save({"model": weights(), "rate": fractions.Fraction(1, 3)}, tmp_path / "w.pth")
    with pytest.raises(ConfigError, match=r"refused, holds a fractions\.Fraction, and loading one could run code"):
        read_weights(tmp_path / "w.pth")


def test_a_part_of_a_model_is_named(tmp_path: Path) -> None:
    part = {"model": {"teacher.backbone._fsdp_wrapped_module._flat_param": torch.ones(4)}}
    torch.save(part, tmp_path / "model_final.rank_0.pth")
    with pytest.raises(ConfigError, match=r"holds teacher\.backbone\._flat_param, one process's part"):
        read_weights(tmp_path / "model_final.rank_0.pth")
