"""Labels of a WebDataset tar: ``key.jpg`` and, beside it, ``key.cls`` or ``key.json``.

``.cls`` is the label as text, a line end behind it dropped. ``.json`` is an object; the label is its first
field of ``label``, ``class``, ``cls`` that is there, as text or a whole number; ``group`` and ``split`` are
taken where they are text. Where both files are there, ``.cls`` says the label.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from bottleneck.errors import SourceError
from bottleneck.schema import Split
from bottleneck.sources.layout import split_of
from bottleneck.system.durable import shown

_FIELDS = ("label", "class", "cls")
_SUFFIXES = (b".cls", b".json")


class LabelFiles:
    """The label files of one archive; empty where it is no WebDataset."""

    def __init__(self, members: frozenset[bytes]) -> None:
        self.members = members

    def __bool__(self) -> bool:
        return bool(self.members)

    def read_labels(
        self, path: bytes, read: Callable[[bytes], bytes], location: str
    ) -> tuple[str | None, str | None, Split | None]:
        """Read label, group and split of one image. Raises `SourceError`."""
        label = group = split = None
        for key in keys_of(path):
            if key + b".json" in self.members:
                label, group, split = _from_json(read(key + b".json"), key + b".json", location)
            if key + b".cls" in self.members:
                label = _from_cls(read(key + b".cls"), key + b".cls", location)
            if label is not None:
                break
        return label, group, split


def keys_of(path: bytes) -> list[bytes]:
    """List possible names of the label file of `path`, longest first.

    WebDataset cuts a name at its first dot; people also write ``a.v1.cls`` beside ``a.v1.jpg``.

    Examples
    --------
    >>> keys_of(b"some.dir/a.v1.jpg")
    [b'some.dir/a.v1', b'some.dir/a']
    """
    folder, slash, name = path.rpartition(b"/")
    stems = dict.fromkeys((name.rpartition(b".")[0] or name, name.partition(b".")[0] or name))
    return [folder + slash + stem for stem in stems]


def label_files(paths: Iterable[bytes]) -> LabelFiles:
    """Find the members that are label files of other members.

    Examples
    --------
    >>> label_files([b"1.jpg", b"1.cls", b"cats/about.json"]).members
    frozenset({b'1.cls'})
    """
    candidates: set[bytes] = set()
    keys: set[bytes] = set()
    for path in paths:
        if path.endswith(_SUFFIXES):
            candidates.add(path)
        else:
            keys.update(keys_of(path))
    return LabelFiles(frozenset(path for path in candidates if path.rpartition(b".")[0] in keys))


def _from_cls(data: bytes, member: bytes, location: str) -> str:
    try:
        text = data.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise SourceError(f"{shown(location)}: {shown(member)} is no UTF-8 text: {error}") from error
    if not text.strip():
        raise SourceError(f"{shown(location)}: {shown(member)} is empty; expected the label of its image")
    return text


def _from_json(data: bytes, member: bytes, location: str) -> tuple[str | None, str | None, Split | None]:
    try:
        value: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{shown(location)}: {shown(member)} is no JSON: {error}") from error
    if not isinstance(value, dict):
        kind = type(value).__name__
        raise SourceError(f"{shown(location)}: {shown(member)} should hold a JSON object, not {kind}")
    label = next((value[name] for name in _FIELDS if value.get(name) is not None), None)
    if label is not None:
        if isinstance(label, bool) or not isinstance(label, (str, int)) or not str(label).strip():
            raise SourceError(
                f"{shown(location)}: the label in {shown(member)} is {label!r}; "
                "expected text or a whole number"
            )
        label = str(label)
    group, split = value.get("group"), value.get("split")
    taken = split_of(split.encode("utf-8", "replace")) if isinstance(split, str) else None
    if split is not None and taken is None:
        raise SourceError(
            f"{shown(location)}: the split in {shown(member)} is {split!r}; expected train, val or test"
        )
    group = group if isinstance(group, str) and group else None
    for name, text in (("label", label), ("group", group)):
        try:
            (text or "").encode()
        except UnicodeEncodeError:
            raise SourceError(
                f"{shown(location)}: the {name} in {shown(member)} is {text!r}, half of a pair of surrogates; "
                "expected text"
            ) from None
    return label, group, taken
