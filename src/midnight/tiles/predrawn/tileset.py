"""What a set of tiles drawn beforehand is: its settings, its name, and how it is cut into shards and jobs."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from midnight.config.fields import plain
from midnight.config.load import load_recipe
from midnight.config.pipeline import Config, Run
from midnight.config.recipe import Predrawn, Tiles
from midnight.errors import MidnightError
from midnight.hashing import hash_value
from midnight.tissue.index import index_identity

# What the drawn tiles do not depend on: augmentation comes when they are read, and all draws are independent ones.
NOT_DRAWN = ("hed_sigma", "max_open_slides", "patience", "tiles_per_read", "read_side")
# What only tiles of damaged slides depend on: at its default it is left out, so that sets of whole slides stay theirs.
FOR_DAMAGED = ("max_damaged", "damage_probes")


def drawn_settings(tiles: Tiles, shares: Mapping[str, float]) -> dict[str, Any]:
    """Everything that the tiles depend on besides the slides; shares are brought to a sum of 1."""
    total = sum(shares.values())
    usual = {name for name in FOR_DAMAGED if getattr(tiles, name) == getattr(Tiles(), name)}
    return {
        "tiles": {name: value for name, value in plain(tiles).items() if name not in usual.union(NOT_DRAWN)},
        "cohorts": [[name, share / total] for name, share in shares.items()],
    }


@dataclass(frozen=True)
class TileSet:
    """A set of distinct tiles of some cohorts (name and share of each), `per_shard` of them in a tar file."""

    cohorts: tuple[tuple[str, float], ...]
    tiles: Tiles
    per_shard: int

    @classmethod
    def of(cls, shares: Mapping[str, float], tiles: Tiles, per_shard: int) -> "TileSet":
        """The set that a run on these cohorts reads; settings that it does not depend on are at their defaults."""
        usual = {name: getattr(Tiles(), name) for name in NOT_DRAWN}
        return cls(tuple(shares.items()), dataclasses.replace(tiles, **usual), per_shard)

    @property
    def predrawn(self) -> Predrawn:
        """Count, format, quality and seed.

        Raises:
            MidnightError: the recipe draws its tiles online.
        """
        if self.tiles.predrawn is None:
            raise MidnightError("tiles.predrawn is null: this recipe draws its tiles online; give it a count of tiles")
        return self.tiles.predrawn

    @property
    def name(self) -> str:
        """Folder of the set. Runs that need the same tiles get the same name, and so share one set."""
        settings = drawn_settings(self.tiles, dict(self.cohorts)) | {"per_shard": self.per_shard}
        cohorts = "+".join(name for name, _ in self.cohorts)
        return f"{cohorts}-{_short(self.predrawn.count)}-{hash_value(settings)[:8]}"

    @property
    def shards(self) -> int:
        """Tar files; replacements of tiles that were drawn twice may make one more."""
        return -(-self.predrawn.count // self.per_shard)

    def samples(self, shard: int) -> range:
        """The sample numbers that a shard holds."""
        return range(shard * self.per_shard, min((shard + 1) * self.per_shard, self.predrawn.count))

    def jobs(self, shards_per_job: int) -> int:
        """Jobs that draw the set."""
        return -(-self.shards // shards_per_job)

    def job_shards(self, job: int, shards_per_job: int) -> range:
        """The shards of one job."""
        return range(job * shards_per_job, min((job + 1) * shards_per_job, self.shards))

    def key(self, indexes: Mapping[str, Path]) -> str:
        """Hash of settings and slides: shards that bear another one belong to another set.

        Args:
            indexes: the tissue index of each cohort.

        Raises:
            MidnightError: an index can't be read.
        """
        slides = {name: index_identity(path) for name, path in indexes.items()}
        return hash_value({"settings": drawn_settings(self.tiles, dict(self.cohorts)), "slides": slides})


def find_set(config: Config, name: str) -> TileSet:
    """The set of a run, or of a recipe: with the cohorts of the first run that uses it, else with all of them.

    Raises:
        ConfigError: there is neither such a run nor such a recipe.
        MidnightError: it draws its tiles online.
    """
    runs = [run for run_name, run in config.runs.items() if name == run_name]
    runs += [run for run in config.runs.values() if name == run.recipe]
    run = runs[0] if runs else Run(name, dict.fromkeys(config.cohorts, 1.0))
    tile_set = TileSet.of(run.cohorts, load_recipe(run.recipe, run.override).tiles, config.draw.tiles_per_shard)
    _ = tile_set.predrawn
    return tile_set


def _short(count: int) -> str:
    """100_000_000 as 100M, 29_500_000 as 29500k, 120 as 120."""
    for unit, size in (("M", 1_000_000), ("k", 1000)):
        if count % size == 0:
            return f"{count // size}{unit}"
    return str(count)
