"""Recipes as a person names and reads them."""

from pathlib import Path

from midnight.config.fields import did_you_mean
from midnight.config.load import load_config, load_recipe, read_yaml, recipe_file, recipe_names
from midnight.config.recipe import Recipe
from midnight.errors import ConfigError


def find_recipe(what: str, run: str | None = None) -> Recipe:
    """A recipe by its name, by the path of its file, or as a run of a configuration has it, with its overrides.

    Args:
        what: a name of `config/recipes/`, a recipe's file, or with `run` a configuration's file.
        run: a run of that configuration.

    Raises:
        ConfigError: there is no such recipe, file or run, or it is wrong.
    """
    path = Path(what)
    if run is None:
        is_file = path.suffix in (".yaml", ".yml")
        return load_recipe(path.stem, folder=path.parent) if is_file else load_recipe(what)
    runs = load_config(read_yaml(path), what).runs
    if run not in runs:
        raise ConfigError(f"{what}: no run {run!r}{did_you_mean(run, runs)}; it has: {', '.join(runs) or 'none'}")
    return load_recipe(runs[run].recipe, runs[run].override)


def recipe_lines(folder: Path | None = None) -> list[str]:
    """Each recipe with the first sentence of the comment at its head, a line each."""
    names = recipe_names(folder)
    width = max(map(len, names), default=0)
    return [f"{name:<{width}}  {first_sentence(recipe_file(name, folder))}" for name in names]


def first_sentence(path: Path) -> str:
    """Of the comment at a file's head, which may go over several lines."""
    words = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        words.append(line.removeprefix("#").strip())
        if ". " in f"{line} ":
            break
    sentence, _, _ = f"{' '.join(words)} ".partition(". ")
    return sentence.strip().removesuffix(".")
