"""docs/fidelity.md says of each value whose word it is: its values are the recipes', and none is missing."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from midnight.config import load_recipe, plain, read_yaml

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "fidelity.md"
ROW = re.compile(r"^\| `([a-z_.]+)` \| (.+?) \| (.+?) \| (.+?) \| (.+?) \|$", re.MULTILINE)
RECIPES = ("midnight-12k", "midnight-92k-392", "ablation", "openmidnight")


def sections() -> dict[str, list[tuple[str, ...]]]:
    """Of each recipe: rows of key, value, words, code, reason."""
    parts = re.split(r"^## (.+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {name: ROW.findall(text) for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def value_of(recipe: Mapping[str, Any], key: str) -> Any:
    group, name = key.split(".")
    return recipe[group][name]


def keys_of(name: str) -> Iterator[str]:
    raw = read_yaml(ROOT / "config" / "recipes" / f"{name}.yaml")
    return (f"{group}.{key}" for group, values in raw.items() if isinstance(values, dict) for key in values)


def as_recipe(text: str) -> Any:
    """A value as the page writes it; `1.0e-4` is a number."""
    return yaml.safe_load(text) if not re.fullmatch(r"[\d.]+e-\d+", text) else float(text)


@pytest.mark.parametrize("name", RECIPES)
def test_the_pages_values_are_the_recipes(name: str) -> None:
    recipe = plain(load_recipe(name))
    rows = sections()[name]
    for key, value, *_ in rows:
        expected, found = as_recipe(value), value_of(recipe, key)
        if isinstance(expected, dict):
            found = {part: found[part] for part in expected}
        assert found == expected, f"{name}: {key}"
    assert len({key for key, *_ in rows}) == len(rows)


@pytest.mark.parametrize("name", RECIPES)
def test_every_key_of_a_recipe_has_its_row(name: str) -> None:
    assert {key for key, *_ in sections()[name]} == set(keys_of(name))


@pytest.mark.parametrize("name", RECIPES)
def test_a_value_that_the_recipe_calls_ours_has_a_reason(name: str) -> None:
    """What the code does otherwise is marked and explained; what is marked is another value than the code's."""
    for key, value, _, code, why in sections()[name]:
        differs = why.startswith("**differs**")
        assert why not in ("–", "") and (not differs or len(why) > len("**differs**: ")), key
        assert not (differs and code == value), key


def test_openmidnight_ends_with_the_rates_of_its_code() -> None:
    from midnight.ssl.schedules import values_at

    recipe = load_recipe("openmidnight")
    last = values_at(recipe, recipe.training.iterations - 1, recipe.training.gpus)
    assert last.lr == pytest.approx(1.22e-4, rel=0.01)
    assert last.momentum == pytest.approx(0.994, abs=1e-4) and last.weight_decay == pytest.approx(0.04, abs=5e-4)
    assert recipe.optimizer.warmup * 10_000_000 == pytest.approx(12_500)
