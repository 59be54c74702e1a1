"""Names in any bytes."""

from __future__ import annotations

import contextlib
import os
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottleneck.sources import layout, open_source
from tests.sources.tiny_files import labels, png, tree

NAMES = [
    b"new\nline.png",
    b"tab\t.png",
    b"-rf",
    b"\xff\xfe not utf-8.png",
    "\u202egnp.exe".encode(),
    "日本語 עברית.png".encode(),
    unicodedata.normalize("NFC", "é.png").encode(),
    unicodedata.normalize("NFD", "é.png").encode(),
    b"x" * 251 + b".png",
    b"back\\slash.png",
    b"%00.png",
    b"*?.png",
]


@pytest.mark.fault(63)
def test_names_in_any_bytes_are_listed_and_read(tmp_path: Path) -> None:
    tree(tmp_path, {b"cats/" + name: number for number, name in enumerate(NAMES)})
    source = open_source(tmp_path)
    assert set(labels(source)) == {b"cats/" + name for name in NAMES}
    for number, name in enumerate(NAMES):
        assert source.read(b"cats/" + name) == png(number)


def test_a_class_that_is_not_utf8_has_a_label_in_plain_text(tmp_path: Path) -> None:
    tree(tmp_path, {b"caf\xe9/1.png": 1, "café/2.png".encode(): 2})
    found = labels(open_source(tmp_path))
    assert found[b"caf\xe9/1.png"][0] == "caf\\xe9"
    assert found["café/2.png".encode()][0] == "café"


#: Bytes of which names are made that look like one another once they are written out.
ODD = st.lists(
    st.sampled_from([b"\\", b"x", b"f", b"\xff", b"\\xff", b"\xc3", b"\xa9", b"a"]), max_size=6
).map(b"".join)


@given(st.lists(ODD | st.binary(max_size=4), unique=True, max_size=12))
def test_other_names_are_other_labels(names: list[bytes]) -> None:
    found = [layout.label_of(name) for name in names]
    assert len(set(found)) == len(names)
    for name, label in zip(names, found, strict=True):
        label.encode("utf-8")
        if not re.search(rb"\\x[0-9a-f]{2}", name):
            with contextlib.suppress(UnicodeDecodeError):
                assert label == name.decode("utf-8"), "ordinary names stay as they are"


def test_a_byte_and_what_it_is_written_as_are_two_classes(tmp_path: Path) -> None:
    files: dict[str | bytes, bytes | int] = {
        b"\xff\xfe/1.png": 1,
        b"\\xff\\xfe/2.png": 2,
        b"\\xff\xfe/3.png": 3,
    }
    found = labels(open_source(tree(tmp_path / "classes", files)))
    assert len({label for label, _ in found.values()}) == 3
    below = {b"train/" + os.fsencode(name): data for name, data in files.items()}
    sides = labels(open_source(tree(tmp_path / "sides", {**below, b"test/b/1.png": 4})))
    assert sides.pop(b"test/b/1.png") == ("b", "test")
    assert sides == {b"train/" + path: (label, "train") for path, (label, _) in found.items()}


def test_a_root_that_is_not_utf8(tmp_path: Path) -> None:
    root = os.path.join(os.fsencode(tmp_path), b"\xff")
    tree(Path(os.fsdecode(root)), {"cats/1.png": 1})
    source = open_source(os.fsdecode(root))
    assert source.read(b"cats/1.png") == png(1)
    assert set(labels(source)) == {b"cats/1.png"}
