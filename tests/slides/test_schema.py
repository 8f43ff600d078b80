import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midnight.slides.manifest import COLUMNS
from midnight.slides.schema import KEYWORDS, checks, schema_file

RULES: dict[str, Any] = json.loads(schema_file().read_text())["properties"]
VALUES = st.one_of(
    st.text(max_size=40),
    st.integers(),
    st.floats(allow_nan=False),
    st.booleans(),
    st.sampled_from(["gdc", "local", "0" * 32, "a-b.c", "..", ".x", "a..b", "x" * 400]),
    st.fixed_dictionaries({}, optional={"mpp": st.floats(-1, 1), "path": st.text(max_size=3), "z": st.none()}),
)


def test_schema_is_valid_and_has_our_columns() -> None:
    schema = json.loads(schema_file().read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    assert tuple(schema["properties"]) == COLUMNS
    assert set(schema["required"]) == set(COLUMNS)


@pytest.mark.parametrize("name", COLUMNS)
def test_only_keywords_that_are_checked(name: str) -> None:
    rule = RULES[name]
    assert set(rule) <= KEYWORDS
    assert all(set(inner) <= KEYWORDS for inner in rule.get("properties", {}).values())


@pytest.mark.parametrize("name", COLUMNS)
@given(value=VALUES)
def test_agrees_with_jsonschema(name: str, value: Any) -> None:
    if isinstance(value, float) and RULES[name].get("type") == "integer":
        return  # JSON schema counts 1.0 as an integer; a manifest never holds one
    expected = jsonschema.Draft202012Validator(RULES[name]).is_valid(value)
    assert (checks()[name](value) == "") == expected
