"""Class and split from a relative path, for folders and archives alike.

The rules, in order:

1. No folder at the top: **flat**. No labels.
2. Every folder at the top is called like a split (``train``, ``val``, ``valid``, ``validation``, ``test``, in
   any case), or ``train`` and one more split are there and one of these holds folders: **splits**. The second
   level is the class.
3. Else **classes**: the first level is the class. So a class called ``train`` among other classes stays a
   class.

Whatever lies deeper belongs to the class above it. A file where no class can be told (at the top, directly in
``train/``, or in a folder beside the splits) is kept without a label: nothing is lost, and training reports
it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from bottleneck.schema import Split
from bottleneck.system.durable import shown

#: The sources there are, for the messages of everybody who has to refuse one.
LAYOUTS = (
    "a folder with one sub-folder a class, or train/, val/ and test/ of these; "
    "a CSV or Parquet table with columns path,label[,group,split]; or a zip or tar of the same layouts; "
    "or one of these behind a URL (s3://, gs://, https://)"
)

SPLIT_NAMES: Mapping[str, Split] = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}

#: What a byte looks like that is no UTF-8, once it is written out.
_WRITTEN_OUT = re.compile(r"\\x[0-9a-f]{2}")

_SYSTEM_FILES = frozenset({b"thumbs.db", b"desktop.ini", b".ds_store", b"icon\r"})


@dataclass(frozen=True)
class Layout:
    """How the relative paths of one source are read.

    Attributes
    ----------
    kind : {"flat", "classes", "splits"}
    splits : mapping of bytes to str
        Folder at the top to the split it stands for; empty unless `kind` is ``splits``.
    prefix : bytes
        Folder, with its slash, that wraps everything in an archive (``photos/`` in a zip of one folder).
    note : str
        What was taken for what, for a person.
    """

    kind: Literal["flat", "classes", "splits"]
    splits: Mapping[bytes, Split] = field(default_factory=dict)
    prefix: bytes = b""
    note: str = ""

    def place(self, folder: bytes) -> tuple[str | None, Split | None]:
        """Give label and split of the files in the relative path `folder`.

        `folder` has no slash at its end; the root is empty.

        Examples
        --------
        >>> tree = decide({b"train": True, b"test": True})
        >>> tree.place(b"train/cats/outdoors"), tree.place(b"test"), tree.place(b"")
        (('cats', 'train'), (None, 'test'), (None, None))
        """
        if self.prefix:
            if not (folder + b"/").startswith(self.prefix):
                return None, None
            folder = folder[len(self.prefix) :]
        if not folder or self.kind == "flat":
            return None, None
        first, _, rest = folder.partition(b"/")
        if self.kind == "classes":
            return label_of(first), None
        if first not in self.splits:
            return None, None
        return (label_of(rest.partition(b"/")[0]) if rest else None), self.splits[first]


def label_of(name: bytes) -> str:
    r"""Turn a folder's name into a label, different for each name.

    Bytes that are no UTF-8 are written out (``\xff``). In such names, and in those that only look like it, a backslash
    stands twice.

    Examples
    --------
    >>> [label_of(name) for name in (b"cats", b"a\\b", b"\xff", b"\\xff")]
    ['cats', 'a\\b', '\\xff', '\\\\xff']
    """
    try:
        text = name.decode("utf-8")
    except UnicodeDecodeError:
        return name.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
    return text.replace("\\", "\\\\") if _WRITTEN_OUT.search(text) else text


def split_of(name: bytes) -> Split | None:
    """Give the split that a folder of this name stands for."""
    return SPLIT_NAMES.get(name.decode("ascii", "replace").lower())


def decide(folders: Mapping[bytes, bool], *, prefix: bytes = b"") -> Layout:
    """Decide the layout of a source from the folders at its top.

    Parameters
    ----------
    folders : mapping of bytes to bool
        Name of each folder at the top (those of `skipped` left out) to whether it holds folders itself. Only
        asked for folders that are called like a split.
    prefix : bytes
        See `Layout`.

    Examples
    --------
    >>> decide({b"cats": False, b"train": True}).kind, decide({b"Train": True}).kind, decide({}).kind
    ('classes', 'splits', 'flat')
    """
    if not folders:
        return Layout("flat", prefix=prefix, note="no sub-folders: images without labels")
    found = {name: split for name in sorted(folders) if (split := split_of(name)) is not None}
    others = sorted(set(folders) - set(found))
    several = "train" in found.values() and len(set(found.values())) > 1
    if found and (not others or (several and any(folders[name] for name in found))):
        pairs = ", ".join(f"{shown(name)}/ as {split}" for name, split in found.items())
        note = f"{pairs}, with one sub-folder a class"
        if not any(folders[name] for name in found):
            note = f"{pairs}; no class folders in them: images without labels"
        if others:
            note += f"; images in {_some(others)} have neither label nor split"
        return Layout("splits", found, prefix, note)
    note = f"{len(folders)} folders as classes"
    if found:
        note += f", {_some(list(found))} among them"
    return Layout("classes", {}, prefix, note)


def _some(names: list[bytes]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(f"{shown(name)}/" for name in names[:5]) + more


def skipped_file(name: bytes) -> str | None:
    """Say why a file of this name is passed over, or None.

    Examples
    --------
    >>> skipped_file(b".DS_Store"), skipped_file(b"._1.jpg"), skipped_file(b"1.jpg")
    ('system file', 'system file', None)
    """
    if name.startswith(b"._") or name.lower() in _SYSTEM_FILES:
        return "system file"
    return "hidden file" if name.startswith(b".") else None


def skipped_folder(name: bytes) -> str | None:
    """Say why a folder of this name is passed over, or None."""
    if name == b"__MACOSX":
        return "__MACOSX folder"
    return "hidden folder" if name.startswith(b".") else None


def skipped(path: bytes) -> str | None:
    """Say why a path is passed over, by any part of it."""
    folder, name = posixpath.split(path)
    for part in folder.split(b"/") if folder else ():
        reason = skipped_folder(part)
        if reason:
            return f"in a {reason}"
    return skipped_file(name)
