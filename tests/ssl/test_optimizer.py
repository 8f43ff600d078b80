import pytest
import torch

from midnight.config import Optimizer
from midnight.ssl.model.network import Network, build_student
from midnight.ssl.optimizer import apply_schedule, build_optimizer, clip_gradients, layer_of, parameter_groups
from midnight.ssl.schedules import Values
from tests.ssl.tiny import tiny_recipe

CONFIG = Optimizer(layer_decay=0.5, patch_embed_lr=0.2)


def student() -> Network:
    return build_student(tiny_recipe())


def settings(network: Network, config: Optimizer = CONFIG) -> dict[str, tuple[float, bool, bool]]:
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return {
        names[id(parameter)]: (group["lr_scale"], group["decays"], group["prototypes"])
        for group in parameter_groups(network, config)
        for parameter in group["params"]
    }


def test_every_parameter_is_in_one_group() -> None:
    network = student()
    grouped = [parameter for group in parameter_groups(network, CONFIG) for parameter in group["params"]]
    assert sorted(map(id, grouped)) == sorted(id(parameter) for parameter in network.parameters())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("backbone.vit.patch_embed.proj.weight", (0.5**3 * 0.2, True, False)),
        ("backbone.vit.patch_embed.proj.bias", (0.5**3 * 0.2, False, False)),
        ("backbone.vit.pos_embed", (0.5**3, True, False)),
        ("backbone.vit.cls_token", (0.5**3, True, False)),
        ("backbone.mask_token", (0.5**3, True, False)),
        ("backbone.vit.blocks.0.attn.qkv.weight", (0.5**2, True, False)),
        ("backbone.vit.blocks.1.attn.qkv.weight", (0.5, True, False)),
        ("backbone.vit.blocks.1.ls1.gamma", (0.5, False, False)),
        ("backbone.vit.blocks.1.norm2.weight", (0.5, False, False)),
        ("backbone.vit.norm.weight", (1.0, False, False)),
        ("dino_head.mlp.0.weight", (1.0, True, False)),
        ("dino_head.mlp.0.bias", (1.0, False, False)),
        ("own_ibot_head.prototypes", (1.0, True, True)),
        ("own_ibot_head.prototype_lengths", (1.0, True, True)),
    ],
)
def test_rates_and_decay(name: str, expected: tuple[float, bool, bool]) -> None:
    scale, decays, prototypes = settings(student())[name]
    assert (pytest.approx(scale), decays, prototypes) == expected


def dinov2s_decay(name: str) -> bool:
    """Its rule: all but names that end with .bias or have norm or gamma in them."""
    return not (name.endswith(".bias") or "norm" in name or "gamma" in name)


@pytest.mark.parametrize("arch", ["vit_tiny_patch16_224", "vit_small_patch14_reg4_dinov2"])
def test_what_decays_is_what_decays_in_dinov2(arch: str) -> None:
    network = build_student(tiny_recipe(backbone={"arch": arch}))
    found = {name: decays for name, (_, decays, _) in settings(network).items()}
    assert found == {name: dinov2s_decay(name) for name in found}
    kept = {name: decays for name, (_, decays, _) in settings(network, Optimizer(decay_tokens=False)).items()}
    spared = {name for name in found if found[name] != kept[name]}
    tokens = {"backbone.mask_token", "backbone.vit.cls_token", "backbone.vit.pos_embed", "backbone.vit.reg_token"}
    assert spared == tokens & set(found) and not any(kept[name] for name in spared)


def test_layers_of_a_deep_backbone() -> None:
    assert [layer_of(f"backbone.vit.blocks.{i}.norm1.bias", 40) for i in (0, 9, 10, 39)] == [1, 10, 11, 40]


def test_frozen_prototypes_stand_still_and_the_rest_moves() -> None:
    network = student()
    optimizer = build_optimizer(network, CONFIG)
    before = {name: value.clone() for name, value in network.named_parameters()}
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    apply_schedule(optimizer, Values(1e-2, 0.1, 0.99, 0.04, frozen_prototypes=True))
    optimizer.step()
    still = {name for name, value in network.named_parameters() if torch.equal(value, before[name])}
    parts = ("dino_head", "own_ibot_head")
    assert still == {f"{part}.{name}" for part in parts for name in ("prototypes", "prototype_lengths")}


def test_gradients_are_clipped_part_by_part() -> None:
    network = student()
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert float(clip_gradients(network, 3.0)) == pytest.approx(count**0.5, rel=1e-5)
    for part in network.parts():
        norm = torch.cat([parameter.grad.flatten() for parameter in part.parameters()]).norm()  # type: ignore[union-attr]
        assert float(norm) == pytest.approx(3.0, rel=1e-3)


def test_what_does_not_decay_gets_no_weight_decay() -> None:
    network = student()
    optimizer = build_optimizer(network, CONFIG)
    apply_schedule(optimizer, Values(1e-2, 0.1, 0.99, 0.04, frozen_prototypes=False))
    assert {(group["decays"], group["weight_decay"]) for group in optimizer.param_groups} == {(True, 0.1), (False, 0.0)}
