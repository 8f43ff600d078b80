"""JSON schemas as files, for editors and reviewers; made from the dataclasses, which a test compares."""

import json
from pathlib import Path
from typing import Any

from midnight.atomic import write_json
from midnight.config.fields import schema
from midnight.config.pipeline import Config
from midnight.config.recipe import Recipe

SCHEMAS = {"config": Config, "recipe": Recipe}


def schema_file(name: str) -> dict[str, Any]:
    """The content of `config/schemas/{name}.schema.json`."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": name} | schema(SCHEMAS[name])


def write_schemas(folder: Path) -> list[Path]:
    """Write all schemas; returns the paths."""
    paths = [folder / f"{name}.schema.json" for name in SCHEMAS]
    for path, name in zip(paths, SCHEMAS, strict=True):
        write_json(path, json.loads(json.dumps(schema_file(name))))
    return paths
