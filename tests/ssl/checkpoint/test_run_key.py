from typing import Any

import pytest

from midnight.config import plain
from midnight.ssl.checkpoint.identity import resolved_config
from midnight.ssl.checkpoint.run_key import BOOKKEEPING, decisive, decisive_recipe, differences, run_key
from tests.ssl.tiny import tiny_recipe


def config(**change: Any) -> dict[str, Any]:
    return resolved_config(tiny_recipe(**change), {}, None, "demo")


OTHER = {"activation_checkpointing": True, "sharding": "on", "keep_every": 3}


@pytest.mark.parametrize("name", BOOKKEEPING)
def test_bookkeeping_is_not_in_the_key(name: str) -> None:
    before = config()
    value = before["recipe"]["training"][name]
    changed = {
        **before,
        "recipe": {**before["recipe"], "training": {**before["recipe"]["training"], name: OTHER.get(name, 77)}},
    }
    assert changed["recipe"]["training"][name] != value
    assert run_key(changed) == run_key(before)


def test_only_the_tiles_of_a_step_count_not_the_processes() -> None:
    assert run_key(config(training={"gpus": 2, "batch_size": 2})) == run_key(config())
    assert run_key(config(training={"batch_size": 2})) != run_key(config())


def test_a_longer_run_is_the_same_where_its_schedules_have_a_length_of_their_own() -> None:
    fixed = {"schedule_iterations": 100}
    keys = {run_key(config(training={**fixed, "iterations": steps})) for steps in (8, 16)}
    assert len(keys) == 1
    assert run_key(config(training={"iterations": 8})) != run_key(config(training={"iterations": 16}))
    # 7 steps of accumulation 2 end with half of an optimizer step, which a longer run would not do
    assert run_key(config(training={**fixed, "iterations": 7})) not in keys


def test_what_has_no_effect_does_not_count() -> None:
    before, softmax = config(), config(loss={"centering": "softmax"})
    assert run_key(config(loss={"center_momentum": 0.5})) == run_key(before)
    assert run_key(config(loss={"centering": "softmax", "sinkhorn_iterations": 9})) == run_key(softmax)
    assert run_key(softmax) != run_key(before)
    assert run_key(config(loss={"centering": "softmax", "center_momentum": 0.5})) != run_key(softmax)
    earlier = {name: value for name, value in before["recipe"]["loss"].items() if not name.startswith("center")}
    assert run_key({**before, "recipe": {**before["recipe"], "loss": earlier}}) == run_key(before)


def test_differences_are_named_by_their_keys() -> None:
    old, new = config(), config(optimizer={"base_lr": 0.5}, crops={"mean": [0.1, 0.2, 0.3]})
    assert differences(decisive(old), decisive(new)) == [
        "crops.mean [0.5, 0.5, 0.5] → [0.1, 0.2, 0.3]",
        f"optimizer.base_lr {old['recipe']['optimizer']['base_lr']} → 0.5",
    ]
    assert differences(decisive(old), decisive(config(training={"log_every": 5}))) == []


def test_a_recipe_s_part_holds_no_bookkeeping() -> None:
    part = decisive_recipe(plain(tiny_recipe()))
    assert not {*BOOKKEEPING, "gpus", "batch_size"} & set(part["training"])
    assert part["training"]["tiles_per_step"] == 4 and "name" not in part
