from pathlib import Path

import pytest
import yaml

from midnight.config import recipe_names
from midnight.config.load import recipe_file
from midnight.config.recipes import find_recipe, first_sentence, recipe_lines
from midnight.errors import ConfigError


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_has_a_line(name: str) -> None:
    assert len(first_sentence(recipe_file(name))) > 10
    assert any(line.startswith(f"{name} ") for line in recipe_lines())


def test_a_sentence_may_go_over_lines_and_ends_at_its_point(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("# ViT-B/14, 0.5 µm/px,\n# on slides. More of it.\nseed: 1\n")
    (tmp_path / "b.yaml").write_text("seed: 1\n# No head.\n")
    assert recipe_lines(tmp_path) == ["a  ViT-B/14, 0.5 µm/px, on slides", "b  "]


def test_a_recipe_is_found_by_name_by_file_and_as_a_runs(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("base: demo\nseed: 7\n")
    assert find_recipe("demo").name == "demo"
    mine = find_recipe(str(tmp_path / "mine.yaml"))
    assert (mine.name, mine.seed, mine.heads) == ("mine", 7, find_recipe("demo").heads)
    run = {"recipe": "demo", "cohorts": {"c": 1}, "override": {"training": {"iterations": 12}}}
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump({"cohorts": {"c": {"source": "gdc"}}, "runs": {"short": run}}))
    assert find_recipe(str(config), "short").training.iterations == 12
    with pytest.raises(ConfigError, match=r"c\.yaml: no run 'shord'; did you mean 'short'\?; it has: short"):
        find_recipe(str(config), "shord")
    with pytest.raises(ConfigError, match=r"unknown recipe 'none'"):
        find_recipe(str(tmp_path / "none.yaml"))
