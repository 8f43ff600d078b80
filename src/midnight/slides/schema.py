"""Check of manifest rows against `config/schemas/manifest.schema.json`, fast enough for 12,000 rows per dry run.

A general validator takes seconds for that many rows; this one compiles the few keywords that the schema uses.
A test holds it against `jsonschema` and refuses keywords that it does not know.
"""

import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from midnight.home import project_file

KEYWORDS = frozenset(
    ("type", "enum", "pattern", "minLength", "maxLength", "minimum", "exclusiveMinimum", "properties", "description")
)
TYPES: dict[str, Any] = {"string": str, "integer": int, "number": (int, float), "object": dict}
Check = Callable[[Any], str]


def schema_file() -> Path:
    """Of a row of a manifest."""
    return project_file("config", "schemas", "manifest.schema.json")


@functools.cache
def checks() -> dict[str, Check]:
    """Per column a function that says what is wrong with a value ("" = nothing)."""
    schema = json.loads(schema_file().read_text(encoding="utf-8"))
    return {name: compile_check(rule) for name, rule in schema["properties"].items()}


def compile_check(rule: dict[str, Any]) -> Check:
    """A function that checks a value against one property of the schema."""
    parts = [part for part in (_type(rule), _enum(rule), _pattern(rule), _limits(rule), _inner(rule)) if part]

    def check(value: Any) -> str:
        for part in parts:
            if problem := part(value):
                return problem
        return ""

    return check


def _type(rule: dict[str, Any]) -> Check | None:
    name = rule.get("type")
    if name is None:
        return None
    kind = TYPES[name]
    return lambda value: "" if isinstance(value, kind) and not isinstance(value, bool) else f"is not of type {name}"


def _enum(rule: dict[str, Any]) -> Check | None:
    allowed = rule.get("enum")
    return (lambda value: "" if value in allowed else f"is not one of {', '.join(allowed)}") if allowed else None


def _pattern(rule: dict[str, Any]) -> Check | None:
    if "pattern" not in rule:
        return None
    match = re.compile(rule["pattern"]).search
    return lambda value: "" if match(value) else f"does not match {rule['pattern']}"


def _limits(rule: dict[str, Any]) -> Check | None:
    low, above = rule.get("minimum"), rule.get("exclusiveMinimum")
    shortest, longest = rule.get("minLength", 0), rule.get("maxLength")
    if low is None and above is None and not shortest and longest is None:
        return None

    def check(value: Any) -> str:
        if isinstance(value, str):
            bad = len(value) < shortest or (longest is not None and len(value) > longest)
            return "has a wrong length" if bad else ""
        bad = (low is not None and value < low) or (above is not None and value <= above)
        return (
            f"must be {'at least' if above is None else 'more than'} {low if above is None else above}" if bad else ""
        )

    return check


def _inner(rule: dict[str, Any]) -> Check | None:
    inner = {name: compile_check(item) for name, item in rule.get("properties", {}).items()}

    def check(value: Any) -> str:
        problems = (
            f"{name} {inner[name](item)}" for name, item in value.items() if name in inner and inner[name](item)
        )
        return next(problems, "")

    return check if inner else None
