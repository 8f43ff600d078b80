import json
import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from midnight.hashing import hash_file, hash_value
from midnight.provenance import provenance


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.lists(st.floats(allow_nan=False))))
def test_hash_ignores_key_order_and_sees_every_value(value: dict[str, object]) -> None:
    assert hash_value(dict(reversed(list(value.items())))) == hash_value(value)
    assert hash_value(value | {"another": 1}) != hash_value(value | {"another": 2})


def test_record_names_commit_lock_inputs_and_versions(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"abc")
    record = provenance({"a": 1}, {"index": tmp_path / "in"})
    assert record["inputs"] == {"index": hash_file(tmp_path / "in")[:16]}
    assert record["inputs"]["index"] == "ba7816bf8f01cfea"
    assert re.fullmatch(r"[0-9a-f]{16}", record["lock"])
    assert record["versions"]["torch"].startswith("2.")
    assert json.loads(json.dumps(record)) == record
