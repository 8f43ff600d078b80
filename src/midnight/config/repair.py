"""A value without what its schema refuses, so that the rest of it is checked as well."""

import copy
from collections.abc import MutableMapping
from typing import Any

from midnight.config.fields import schema

Place = tuple[str | int, ...]


def without_wrong_keys(cls: type, value: Any) -> tuple[Any, list[str]]:
    """A JSON-like mapping that the schema of `cls` takes, and the dotted keys that were left out of it for that."""
    import jsonschema

    validator = jsonschema.Draft202012Validator(schema(cls))
    sound, left_out = copy.deepcopy(value), []
    while places := [place for problem in validator.iter_errors(sound) for place in _wrong(problem)]:
        for place in places:
            _drop(sound, place)
        left_out += [".".join(map(str, place)) for place in places]
        if not isinstance(sound, MutableMapping) or () in places:
            return {}, left_out
    return sound, left_out


def _wrong(problem: Any) -> list[Place]:
    """Where a problem is: unknown keys by themselves, what lacks a key as a whole, of a list all of it."""
    place = tuple(problem.absolute_path)
    if problem.validator == "additionalProperties":
        return [(*place, name) for name in problem.instance if name not in problem.schema.get("properties", {})]
    numbered = next((index for index, part in enumerate(place) if isinstance(part, int)), len(place))
    return [place[:numbered]]


def _drop(value: Any, place: Place) -> None:
    *parents, last = place or ("",)
    for part in parents:
        value = value.get(part) if isinstance(value, MutableMapping) else None
    if isinstance(value, MutableMapping):
        value.pop(last, None)
