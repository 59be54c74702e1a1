"""JSON that somebody else wrote: either a value or one kind of error."""

from __future__ import annotations

import contextlib
import json
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottleneck.schema import Record, SplitPolicy
from bottleneck.schema.strict_json import MalformedDocument, check_zip, loads, parse_as

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=20,
)


@given(VALUES)
def test_what_json_writes_is_read(value: object) -> None:
    assert loads(json.dumps(value, allow_nan=False).encode()) == value
    assert loads(json.dumps(value, allow_nan=False, ensure_ascii=False).encode()) == value


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_one_kind_of_error(data: bytes) -> None:
    with contextlib.suppress(MalformedDocument):  # any other kind comes through
        loads(data)
    with pytest.raises(MalformedDocument):
        parse_as(Record, data)


@pytest.mark.fault(40)
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "'c' stands there twice"),
        (b"[NaN]", "NaN is no number"),
        (b"[-Infinity]", "-Infinity is no number"),
        (b"9" * 21, "21 digits"),
        (b"9" * 5000, "5000 digits"),
        (b"[" * 100_000, "not a JSON document"),
        (b'{"a":' * 100_000, "not a JSON document"),
        (b"\xff\xfe{\x00}\x00", "not a JSON document"),
        (b"", "not a JSON document"),
        (b"{} {}", "not a JSON document"),
        (b'{"a": 1,}', "not a JSON document"),
    ],
)
def test_hostile_documents(data: bytes, words: str) -> None:
    with pytest.raises(MalformedDocument, match=words.replace("[", r"\[")):
        loads(data)


@pytest.mark.fault(40)
def test_a_document_is_refused_by_size_before_it_is_parsed() -> None:
    with pytest.raises(MalformedDocument, match="at most 10 were expected"):
        loads(b"[1,1,1,1,1,1]", most_bytes=10)
    assert loads(b"[1,1,1,1]", most_bytes=10) == [1, 1, 1, 1]


def test_a_number_too_large_for_a_float_is_no_infinity() -> None:
    with pytest.raises(MalformedDocument):
        parse_as(SplitPolicy, b'{"validation": 1e999}')


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'{"kind": "hash", "more": 1}', "more"),
        (b'{"kind": "random"}', "kind"),
        (b'{"validation": 1.0}', "validation"),
        (b"[]", "value"),
        (b"null", "value"),
    ],
)
def test_what_does_not_fit_is_named(data: bytes, words: str) -> None:
    with pytest.raises(MalformedDocument, match=words):
        parse_as(SplitPolicy, data)


@pytest.mark.fault(49)
@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"config.json": 2000}, "config.json"),
        ({"model.weights.h5": 300_000}, "far more than it is"),
        ({"config.json": 900, "model.weights.h5": 900}, ""),
    ],
)
def test_a_zip_that_unpacks_to_too_much_is_refused_by_what_it_declares(
    tmp_path: Path, members: dict[str, int], words: str
) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, size in members.items():
            archive.writestr(name, bytes(size))
    if not words:
        check_zip(tmp_path / "a.zip", most_text=1000)
        return
    with pytest.raises(MalformedDocument, match=words):
        check_zip(tmp_path / "a.zip", most_text=1000)
