"""From dataclasses to checked values and JSON schemas: one source of truth for every key.

Checked by jsonschema, not by pydantic. The schemas are files in `config/schemas` that editors use, so what an editor
underlines and what a run refuses must be one. From pydantic we would take types and ranges alone: whole files must be
told with all that is wrong in them, nearest names, `1e-3` read as a number, recipes checked by parts before their bases
are laid under them, and configurations read on without their wrong keys; that is this module and `repair`.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from midnight.errors import ConfigError

T = TypeVar("T")
SCALARS = {int: "integer", float: "number", str: "string", bool: "boolean"}


def key(default: Any = dataclasses.MISSING, doc: str = "", **limits: Any) -> Any:
    """A documented dataclass field; `limits` are JSON schema keywords such as `minimum`."""
    metadata = {"doc": doc, "limits": limits}
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata=metadata)
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def schema(cls: type) -> dict[str, Any]:
    """The JSON schema of a dataclass; unknown keys are rejected, docs become descriptions."""
    hints = typing.get_type_hints(cls)
    properties, required = {}, []
    for field in dataclasses.fields(cls):
        properties[field.name] = _type_schema(hints[field.name], field.metadata.get("limits", {}))
        if doc := field.metadata.get("doc"):
            properties[field.name]["description"] = doc
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            required.append(field.name)
    out: dict[str, Any] = {"type": "object", "additionalProperties": False, "properties": properties}
    return out | ({"required": required} if required else {})


def _type_schema(kind: Any, limits: Mapping[str, Any]) -> dict[str, Any]:
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        inner = [_type_schema(arg, limits) for arg in args if arg is not type(None)]
        nullable = [{"type": "null"}] if type(None) in args else []
        return {"anyOf": [*inner, *nullable]}
    if origin is Literal:
        return {"enum": list(args)}
    if origin is tuple and args[-1] is not Ellipsis:
        items = [_type_schema(arg, limits) for arg in args]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
    if origin in (tuple, list):
        length = {name: limits[name] for name in ("minItems",) if name in limits}
        rest = {name: value for name, value in limits.items() if name not in length}
        return {"type": "array", "items": _type_schema(args[0], rest)} | length
    if origin is dict:
        return {"type": "object", "additionalProperties": _type_schema(args[1], limits)}
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return schema(kind)
    return ({} if kind is Any else {"type": SCALARS[kind]}) | dict(limits)


def problems(cls: type, value: Any) -> list[str]:
    """What is wrong with a JSON-like value by the schema of `cls`: a line each, with the dotted key, sorted by it."""
    import jsonschema

    found = jsonschema.Draft202012Validator(schema(cls)).iter_errors(value)
    best = [jsonschema.exceptions.best_match([problem]) for problem in found]
    ordered = sorted(best, key=lambda problem: list(map(str, problem.absolute_path)))
    return list(dict.fromkeys(map(_explain, ordered)))  # two missing keys are two errors of one line


def validate(cls: type, value: Any, where: str) -> None:
    """Check a JSON-like value against the schema of `cls`.

    Raises:
        ConfigError: `where` (a file) and the dotted keys that are wrong, what is wrong, what is allowed.
    """
    refuse(where, problems(cls, value))


def refuse(where: str, lines: Sequence[str]) -> None:
    """End where there are problems, with all of them.

    Args:
        where: the file that they are in; "" where the lines say it themselves.
        lines: the problems.

    Raises:
        ConfigError: one line, or for several a head and a line each.
    """
    prefix = f"{where}: " if where else ""
    if len(lines) == 1:
        raise ConfigError(f"{prefix}{lines[0]}")
    if lines:
        raise ConfigError("\n".join([f"{prefix}{len(lines)} problems:", *(f"  {line}" for line in lines)]))


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or "" where no known name is like this one."""
    close = difflib.get_close_matches(str(name), list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _explain(problem: Any) -> str:
    place = ".".join(str(part) for part in problem.absolute_path) or "(top level)"
    if problem.validator == "additionalProperties":
        allowed = problem.schema.get("properties", {})
        unknown = sorted(set(map(str, problem.instance)) - set(allowed))
        hints = "".join(did_you_mean(name, allowed) for name in unknown)
        return f"{place}: unknown key {', '.join(map(repr, unknown))}{hints}; known keys: {', '.join(sorted(allowed))}"
    if problem.validator == "required":
        missing = sorted(set(problem.validator_value) - set(problem.instance))
        return f"{place}: missing key {', '.join(map(repr, missing))}"
    if problem.validator == "type" and problem.instance is None:
        return f"{place}: is empty; fill it in ({problem.validator_value}), or remove the key"
    if problem.validator == "enum":
        known = [str(item) for item in problem.validator_value]
        return f"{place}: {problem.instance!r} is none of {', '.join(known)}{did_you_mean(problem.instance, known)}"
    return f"{place}: {problem.message}"


def numbers(kind: Any, value: Any) -> Any:
    """A JSON-like value in which text that is a number (`1e-3`, which YAML takes for text) is one where one belongs."""
    origin, args = get_origin(kind), get_args(kind)
    if isinstance(value, str):
        kinds = args if origin in (Union, types.UnionType) else (kind,)
        return _number(value) if float in kinds and str not in kinds else value
    if origin in (Union, types.UnionType):
        kind = next((arg for arg in args if arg is not type(None)), kind)
        return numbers(kind, value)
    if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
        hints = typing.get_type_hints(kind)
        return {name: numbers(hints.get(name, Any), item) for name, item in value.items()}
    if origin in (tuple, list) and isinstance(value, list | tuple):
        item_kinds = [args[0]] * len(value) if origin is list or args[-1] is Ellipsis else [*args, *[Any] * len(value)]
        return [numbers(item_kind, item) for item_kind, item in zip(item_kinds, value, strict=False)]
    if origin is dict and isinstance(value, Mapping):
        return {name: numbers(args[1], item) for name, item in value.items()}
    return value


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def build(cls: type[T], value: Mapping[str, Any], where: str) -> T:
    """A dataclass from a JSON-like mapping, checked first; lists become tuples where the field is one.

    Raises:
        ConfigError: see `validate`.
    """
    value = numbers(cls, value)
    validate(cls, value, where)
    return _convert(cls, value)


def _convert(kind: Any, value: Any) -> Any:
    origin, args = get_origin(kind), get_args(kind)
    if value is None:
        return None
    if origin in (Union, types.UnionType):
        fits = (
            arg for arg in args if arg is not type(None) and not (isinstance(value, str) and get_origin(arg) is list)
        )
        return _convert(next(fits), value)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = typing.get_type_hints(kind)
        return kind(**{name: _convert(hints[name], item) for name, item in value.items()})
    if origin in (tuple, list):
        kinds = [args[0]] * len(value) if origin is list or args[-1] is Ellipsis else args
        return origin(_convert(item_kind, item) for item_kind, item in zip(kinds, value, strict=True))
    if origin is dict:
        return {name: _convert(args[1], item) for name, item in value.items()}
    return float(value) if kind is float else value


def choose(value: str, options: Mapping[str, T], name: str) -> T:
    """What goes with the value of a key that has few: the only way to tell them apart, so that none is forgotten.

    Raises:
        ConfigError: nothing goes with it.
    """
    if value not in options:
        raise ConfigError(f"{name}: {value!r} has no effect here; known: {', '.join(options)}")
    return options[value]


def plain(value: Any) -> Any:
    """A dataclass as nested dicts and lists, ready for YAML, JSON or hashing."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value
