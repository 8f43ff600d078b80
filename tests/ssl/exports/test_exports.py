import json
import runpy
from pathlib import Path
from typing import Any

import jsonargparse
import numpy as np
import pytest
import timm
import torch
import yaml
from eva.core.models.wrappers.base import BaseModel
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.models import VisionTransformer
from transformers import AutoImageProcessor, AutoModel, Dinov2Model, Dinov2WithRegistersModel

from midnight.cli import main
from midnight.config import Recipe
from midnight.errors import MidnightError
from midnight.ssl.exports import export_run
from midnight.ssl.exports.model_folder import HEADS, export_teacher, load_model
from midnight.ssl.exports.readme import Result
from midnight.ssl.model.backbone import MaskedViT, build_vit
from midnight.ssl.model.weight_files import read_weights
from midnight.ssl.model.weights import load_backbone
from tests.report.example import write_scores
from tests.ssl.tiny import tiny_recipe

SHAPE = {"embed_dim": 24, "depth": 3, "num_heads": 2}
SIZE = {14: 56, 8: 40, 16: 64}
# Dinov2's SwiGLU of width 24 has 64 hidden units, which is 2/3 of 4 · 24; timm's arch of the giant is told the same.
MLPS = {"mlp": "vit_small_patch14{}_dinov2", "swiglu": "vit_giant_patch14{}_dinov2"}
ALL = [(mlp, registers, patch) for mlp in MLPS for registers in (0, 4) for patch in (14, 8, 16)]


def recipe_of(mlp: str, registers: int, patch: int, **kwargs: Any) -> Recipe:
    arch = MLPS[mlp].format("_reg4" if registers else "")
    ratio = {"mlp_ratio": 2 * 64 / 24 + 1e-6} if mlp == "swiglu" else {}
    crops = {"global_size": SIZE[patch], "local_size": 2 * patch, "mean": [0.7, 0.5, 0.6], "std": [0.2, 0.3, 0.25]}
    return tiny_recipe(
        crops=crops, backbone={"arch": arch, "kwargs": SHAPE | ratio | {"patch_size": patch} | kwargs, "drop_path": 0.0}
    )


def run_folder(folder: Path, recipe: Recipe) -> VisionTransformer:
    """A run's folder with random weights, every one away from its init value."""
    torch.manual_seed(0)
    vit = build_vit(recipe.backbone, recipe.crops.global_size).eval()
    for parameter in vit.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    export_teacher(vit, recipe, folder, 7, "demo")
    return vit


@torch.no_grad()
def tokens_of(vit: VisionTransformer, images: torch.Tensor) -> torch.Tensor:
    return vit.forward_features(images)


def assert_same(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-5)
    assert ours.std() > 0.1


@pytest.mark.parametrize(("mlp", "registers", "patch"), ALL)
def test_transformers_loads_the_same_model(tmp_path: Path, mlp: str, registers: int, patch: int) -> None:
    vit = run_folder(tmp_path / "run", recipe_of(mlp, registers, patch))
    export_run(tmp_path / "run", "hf", tmp_path / "hf")
    kind = Dinov2WithRegistersModel if registers else Dinov2Model
    model, report = kind.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not any(report.values()), report
    images = torch.randn(2, 3, SIZE[patch], SIZE[patch])
    with torch.no_grad():
        output = model.eval()(images)
    assert_same(tokens_of(vit, images), output.last_hidden_state)
    assert_same(tokens_of(vit, images)[:, 0], output.pooler_output)
    assert type(AutoModel.from_pretrained(tmp_path / "hf")) is kind


@pytest.mark.parametrize(("mlp", "registers", "patch"), ALL)
def test_an_export_for_transformers_comes_back_as_init(tmp_path: Path, mlp: str, registers: int, patch: int) -> None:
    recipe = recipe_of(mlp, registers, patch)
    vit = run_folder(tmp_path / "run", recipe)
    export_run(tmp_path / "run", "hf", tmp_path / "hf")
    model = MaskedViT(build_vit(recipe.backbone, SIZE[patch]))
    load_backbone(model, read_weights(tmp_path / "hf" / "model.safetensors"), "test")
    for name, value in model.vit.state_dict().items():
        assert torch.equal(value, vit.state_dict()[name]), name


@pytest.mark.parametrize(("mlp", "registers", "patch"), ALL)
def test_timm_loads_the_same_model(tmp_path: Path, mlp: str, registers: int, patch: int) -> None:
    vit = run_folder(tmp_path / "run", recipe_of(mlp, registers, patch))
    export_run(tmp_path / "run", "timm", tmp_path / "timm")
    model = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval()
    images = torch.randn(2, 3, SIZE[patch], SIZE[patch])
    assert_same(tokens_of(vit, images), tokens_of(model, images))
    assert_same(tokens_of(vit, images)[:, 0], model(images).detach())
    data = timm.data.resolve_model_data_config(model)
    assert tuple(data["input_size"]) == (3, SIZE[patch], SIZE[patch])
    assert [*data["mean"], *data["std"], data["crop_pct"]] == [0.7, 0.5, 0.6, 0.2, 0.3, 0.25, 1.0]


@pytest.mark.parametrize(("mlp", "registers", "patch"), ALL)
def test_eva_loads_the_same_model(tmp_path: Path, mlp: str, registers: int, patch: int) -> None:
    vit = run_folder(tmp_path / "run", recipe_of(mlp, registers, patch))
    export_run(tmp_path / "run", "eva", tmp_path / "eva")
    images = torch.randn(2, 3, SIZE[patch], SIZE[patch])
    tokens = tokens_of(vit, images)
    assert_same(tokens[:, 0], eva_backbone(tmp_path / "eva" / "classification.yaml")(images).detach())
    maps = eva_backbone(tmp_path / "eva" / "segmentation.yaml")(images)
    side = SIZE[patch] // patch
    assert [tuple(item.shape) for item in maps] == [(2, 24, side, side)]
    assert_same(tokens[:, 1 + registers :].transpose(1, 2), maps[0].flatten(2).detach())


def eva_backbone(path: Path) -> torch.nn.Module:
    """The block as eva's command line makes it: by jsonargparse, typed by eva's base class."""
    parser = jsonargparse.ArgumentParser(parser_mode="omegaconf")
    parser.add_subclass_arguments(BaseModel, "backbone", fail_untyped=False)
    parsed = parser.parse_object(yaml.safe_load(path.read_text()))
    return parser.instantiate_classes(parsed)["backbone"].eval()


def test_positions_of_registers_become_part_of_them(tmp_path: Path) -> None:
    vit = run_folder(tmp_path / "run", recipe_of("mlp", 4, 14, no_embed_class=False))
    assert vit.pos_embed.shape[1] == 1 + 4 + 16
    export_run(tmp_path / "run", "hf", tmp_path / "hf")
    images = torch.randn(1, 3, 56, 56)
    output = Dinov2WithRegistersModel.from_pretrained(tmp_path / "hf").eval()(images)
    assert_same(tokens_of(vit, images), output.last_hidden_state.detach())


def test_a_model_without_layer_scale_has_factors_of_one(tmp_path: Path) -> None:
    vit = run_folder(tmp_path / "run", tiny_recipe(backbone={"layer_scale": None}))
    export_run(tmp_path / "run", "hf", tmp_path / "hf")
    images = torch.randn(1, 3, 28, 28)
    output = Dinov2Model.from_pretrained(tmp_path / "hf").eval()(images)
    assert_same(tokens_of(vit, images), output.last_hidden_state.detach())


def test_the_mask_token_of_the_run_is_kept(tmp_path: Path) -> None:
    run_folder(tmp_path / "run", recipe_of("mlp", 0, 14))
    token = torch.randn(24)
    save_file({"backbone.mask_token": token}, tmp_path / "run" / HEADS)
    export_run(tmp_path / "run", "hf", tmp_path / "hf")
    assert torch.equal(Dinov2Model.from_pretrained(tmp_path / "hf").embeddings.mask_token[0], token)


def test_transformers_prepares_images_as_the_card_says(tmp_path: Path) -> None:
    run_folder(tmp_path / "run", recipe_of("mlp", 0, 14))
    export_run(tmp_path / "run", "hf", tmp_path / "hf")
    processor = AutoImageProcessor.from_pretrained(tmp_path / "hf")
    image = torch.full((3, 112, 112), 128, dtype=torch.uint8)
    pixels = torch.as_tensor(processor(image, return_tensors="pt")["pixel_values"])
    assert pixels.shape == (1, 3, 56, 56)
    expected = (128 / 255 - torch.tensor([0.7, 0.5, 0.6])) / torch.tensor([0.2, 0.3, 0.25])
    torch.testing.assert_close(pixels[0, :, 20, 20], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("registers", [0, 4])
def test_a_model_without_positions_gives_the_same_outputs(tmp_path: Path, registers: int) -> None:
    """`pos_embed: none` was a KeyError."""
    vit = run_folder(tmp_path / "run", recipe_of("mlp", registers, 14, pos_embed="none"))
    kind = Dinov2WithRegistersModel if registers else Dinov2Model
    images = torch.randn(2, 3, SIZE[14], SIZE[14])
    export_run(tmp_path / "run", "hf", tmp_path / "hf")
    output = kind.from_pretrained(tmp_path / "hf").eval()(images)
    assert_same(tokens_of(vit, images), output.last_hidden_state.detach())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"qk_norm": True}, "q_norm"),
        ({"pre_norm": True}, "norm_pre"),
        ({"mlp_ratio": 2.5}, "whole ratios"),
        ({"global_pool": "avg"}, "fc_norm"),
    ],
)
def test_what_dinov2_lacks_is_one_line(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    run_folder(tmp_path / "run", recipe_of("mlp", 0, 14, **change))
    with pytest.raises(MidnightError, match=reason) as caught:
        export_run(tmp_path / "run", "hf", tmp_path / "hf")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "hf").exists()


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vit = run_folder(tmp_path / "run", recipe_of("mlp", 0, 14))
    main(["export", str(tmp_path / "run"), str(tmp_path / "out"), "--to", "timm"])
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == str(tmp_path / "out") and printed[-1] == f"hf upload USER/run {tmp_path / 'out'}"
    saved = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(saved[name], value) for name, value in vit.state_dict().items())
    assert json.loads((tmp_path / "out" / "config.json").read_text())["architecture"] == "vit_small_patch14_dinov2"
    with pytest.raises(SystemExit, match="is read by this command"):
        main(["export", str(tmp_path / "run"), str(tmp_path / "run"), "--to", "timm"])
    assert load_model(tmp_path / "run")[1]["step"] == 7


def run_lines(lines: list[str], path: Path) -> dict[str, Any]:
    """The names that printed lines leave, run as a script."""
    path.write_text("\n".join(lines))
    return runpy.run_path(str(path))


@pytest.mark.parametrize("target", ["timm", "hf"])
def test_the_printed_lines_load_the_export(tmp_path: Path, target: str) -> None:
    folder = tmp_path / "it's one"
    vit = run_folder(tmp_path / "run", recipe_of("mlp", 4, 14))
    *loading, _ = export_run(tmp_path / "run", target, folder)
    assert len(loading) == 3
    names = run_lines(loading, tmp_path / "loading.py")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (56, 56, 3), np.uint8))
    if target == "timm":
        pixels = names["transform"](image)[None]
        found = names["model"].forward_features(pixels)
    else:
        pixels = names["processor"](images=image, return_tensors="pt")["pixel_values"]
        found = names["model"](pixels).last_hidden_state
    card = load_model(tmp_path / "run")[1]
    mean, std = (torch.tensor(card[name]).view(3, 1, 1) for name in ("mean", "std"))
    expected = (torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255 - mean) / std
    torch.testing.assert_close(pixels[0], expected, atol=1e-5, rtol=1e-5)
    assert_same(tokens_of(vit, pixels), found.detach())


def front_of(folder: Path) -> dict[str, Any]:
    _, front, _ = (folder / "README.md").read_text().split("---\n", 2)
    return dict(yaml.safe_load(front))


@pytest.mark.parametrize("target", ["timm", "hf", "eva"])
def test_the_card_says_what_it_is_and_that_it_is_demo_data(tmp_path: Path, target: str) -> None:
    run_folder(tmp_path / "run", recipe_of("mlp", 0, 14))
    (tmp_path / "run" / "config.yaml").write_text("cohorts: {tcga <b>: {weight: 1.0}}\n")
    results = [Result("bach", 224, "cls", "accuracy", 0.5, "paper", "demo")]
    *loading, _ = export_run(tmp_path / "run", target, tmp_path / "out", results=results)
    text, front = (tmp_path / "out" / "README.md").read_text(), front_of(tmp_path / "out")
    assert front["library_name"] == {"timm": "timm", "hf": "transformers", "eva": "kaiko-eva"}[target]
    assert front["pipeline_tag"] == "image-feature-extraction" and "license" not in front
    assert "**Demo data**" in text and "Scores on demo data" in text
    assert "| bach | 224 | cls | accuracy | 0.500 | paper | demo |" in text
    assert "56 px" in text and "[0.7, 0.5, 0.6]" in text and "7 micro-steps" in text
    assert "tcga &#60;b&#62;" in text and "<b>" not in text
    shown = [line.replace(str(tmp_path / "out"), "USER/run").replace("local-dir:", "hf-hub:") for line in loading]
    assert "\n".join(shown) in text


def test_the_card_of_a_run_has_its_scores(tmp_path: Path) -> None:
    run_folder(tmp_path / "models" / "demo", recipe_of("mlp", 0, 14))
    write_scores(tmp_path / "scores")
    main(["export", str(tmp_path / "models" / "demo"), str(tmp_path / "out"), "--to", "timm"])
    text = (tmp_path / "out" / "README.md").read_text()
    assert text.count("| demo |\n") == 10 and "| hest-DEMO_A | 112 | cls_mean |" in text
    assert "196" not in text.split("## Scores")[1]
