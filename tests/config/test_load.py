import json
from pathlib import Path
from typing import Any

import pytest

from midnight.config import initial_recipe, load_config, load_recipe, merge, plain, read_yaml, recipe_names
from midnight.config.schemas import SCHEMAS, schema_file
from midnight.errors import ConfigError

MINIMAL: dict[str, Any] = {"cohorts": {"c": {"source": "gdc"}}}


def write(folder: Path, name: str, text: str) -> None:
    (folder / f"{name}.yaml").write_text(text)


def test_merge_replaces_lists_and_scalars_and_keeps_the_rest() -> None:
    base = {"a": {"b": 1, "c": [1, 2]}, "d": 1}
    assert merge(base, {"a": {"c": [3]}, "e": 2}) == {"a": {"b": 1, "c": [3]}, "d": 1, "e": 2}
    assert base == {"a": {"b": 1, "c": [1, 2]}, "d": 1}


def test_recipe_inherits_and_overrides(tmp_path: Path) -> None:
    write(tmp_path, "parent", "training: {iterations: 7, gpus: 2}\n")
    write(tmp_path, "child", "base: parent\ntraining: {gpus: 1}\n")
    recipe = load_recipe("child", {"optimizer": {"base_lr": 1e-2}}, tmp_path)
    assert (recipe.training.iterations, recipe.training.gpus, recipe.optimizer.base_lr) == (7, 1, 1e-2)
    assert recipe.name == "child"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("training: {iterations: -1}", "training.iterations: -1 is less than the minimum of 1"),
        ("tiles: {mpps: [-0.5]}", "tiles.mpps.0: -0.5 is less than or equal to the minimum of 0"),
        ("lr: 1", "unknown key 'lr'"),
        ("base: nowhere", "unknown recipe 'nowhere'"),
        ("base: bad", "circle"),
        ("[1]", "must be a mapping"),
        ("a: [", "not valid YAML"),
    ],
)
def test_bad_recipes_are_one_clear_line(tmp_path: Path, text: str, expected: str) -> None:
    write(tmp_path, "bad", text)
    with pytest.raises(ConfigError, match=r"bad") as caught:
        load_recipe("bad", folder=tmp_path)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_of_the_project_resolves(name: str) -> None:
    assert load_recipe(name).name == name


@pytest.mark.parametrize("name", ["config", "demo", "demo-ablations"])
def test_every_configuration_of_the_project_loads(repository: Path, name: str) -> None:
    path = repository / "config" / f"{name}.yaml"
    config = load_config(read_yaml(path), str(path))
    assert config.runs
    assert [load_recipe(run.recipe, run.override).name for run in config.runs.values()] == [
        run.recipe for run in config.runs.values()
    ]


def test_unknown_cohort_of_a_run_is_named() -> None:
    with pytest.raises(ConfigError, match=r"runs\.r\.cohorts: no cohort 'x'"):
        load_config(MINIMAL | {"runs": {"r": {"recipe": "demo", "cohorts": {"x": 1}}}}, "c.yaml")


def test_local_cohort_without_a_path_says_what_to_fill() -> None:
    with pytest.raises(ConfigError, match=r"cohorts\.c\.path: a local cohort needs the folder"):
        load_config({"cohorts": {"c": {"source": "local"}}}, "c.yaml")


def test_a_configuration_of_an_evaluation_needs_no_cohorts() -> None:
    assert load_config({"evaluation": {"weights": {"mine": "weights.pth"}}}, "c.yaml").cohorts == {}
    with pytest.raises(ConfigError, match=r"runs\.r\.cohorts: no cohort 'x'"):
        load_config({"runs": {"r": {"recipe": "demo", "cohorts": {"x": 1}}}}, "c.yaml")


def test_random_init_depends_on_architecture_and_seed_only() -> None:
    one = load_recipe(
        "demo", {"training": {"iterations": 5}, "crops": {"jitter_p": 0.1}, "backbone": {"drop_path": 0.3}}
    )
    other = load_recipe("demo", {"seed": 4})
    assert plain(initial_recipe(one)) == plain(initial_recipe(load_recipe("demo")))
    assert plain(initial_recipe(other)) != plain(initial_recipe(load_recipe("demo")))


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema_files_are_those_of_the_dataclasses(repository: Path, name: str) -> None:
    written = json.loads((repository / "config" / "schemas" / f"{name}.schema.json").read_text())
    assert written == json.loads(json.dumps(schema_file(name))), "run `make schemas`"


def test_tiles_that_would_not_move_on_are_refused() -> None:
    value = {"cohorts": {"a": {"source": "local", "path": "x"}}, "features": {"size": 56, "overlap": 56}}
    with pytest.raises(ConfigError, match=r"here: features\.overlap: 56 px of tiles of 56 px"):
        load_config(value, "here")
