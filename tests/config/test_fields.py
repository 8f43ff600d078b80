from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midnight.config.fields import build, key, plain, schema
from midnight.errors import ConfigError


@dataclass(frozen=True)
class Inner:
    size: int = key(3, "px", minimum=1)
    pair: tuple[float, float] = key((0.0, 1.0), "range", minimum=0)


@dataclass(frozen=True)
class Outer:
    name: str = key(doc="required")
    kind: Literal["a", "b"] = key("a")
    inner: Inner = key(Inner)
    maybe: Inner | None = key(None)
    many: dict[str, Inner] = key(dict)
    free: dict[str, Any] = key(dict)
    numbers: tuple[float, ...] = key((1.0,), minItems=1, exclusiveMinimum=0)


def message(value: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        build(Outer, value, "file.yaml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_values_become_typed_dataclasses() -> None:
    built = build(Outer, {"name": "x", "many": {"m": {"pair": [1, 2]}}, "maybe": {"size": 2}, "numbers": [1, 2]}, "f")
    assert built.many["m"].pair == (1.0, 2.0)
    assert isinstance(built.numbers[0], float)
    assert built.maybe == Inner(size=2)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({}, "file.yaml: (top level): missing key 'name'"),
        ({"name": "x", "nmae": 1}, "(top level): unknown key 'nmae'; did you mean 'name'?; known keys:"),
        ({"name": "x", "inner": {"size": 0}}, "inner.size: 0 is less than the minimum of 1"),
        ({"name": "x", "inner": {"sise": 1}}, "inner: unknown key 'sise'"),
        ({"name": "x", "kind": "c"}, "kind: 'c' is none of a, b"),
        ({"name": "x", "inner": {"pair": [0]}}, "inner.pair: [0] is too short"),
        ({"name": "x", "many": {"m": {"size": "1"}}}, "many.m.size: '1' is not of type 'integer'"),
        ({"name": "x", "many": {"m": {"size": None}}}, "many.m.size: is empty; fill it in (integer), or remove"),
        ({"name": "x", "numbers": []}, "numbers"),
        ({"name": "x", "numbers": [0]}, "numbers.0: 0 is less than or equal to the minimum of 0"),
    ],
)
def test_messages_name_file_and_key(value: dict[str, Any], expected: str) -> None:
    assert expected in message(value)


@given(
    size=st.integers(1, 9), low=st.floats(0, 5), high=st.floats(0, 5), free=st.dictionaries(st.text(), st.integers())
)
def test_plain_and_build_are_inverse(size: int, low: float, high: float, free: dict[str, int]) -> None:
    value = Outer(name="n", inner=Inner(size, (low, high)), free=free, many={"k": Inner(size)})
    assert build(Outer, plain(value), "f") == value


def test_schema_documents_every_key() -> None:
    inner = schema(Outer)["properties"]["inner"]
    assert inner["properties"]["size"] == {"type": "integer", "minimum": 1, "description": "px"}
    assert inner["additionalProperties"] is False
