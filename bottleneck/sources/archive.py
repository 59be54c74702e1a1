"""Zip and tar archives, read in place through an index of members.

Where one name stands several times the last one wins, as unpacking would have it; the older ones are counted.
"""

from __future__ import annotations

import abc
import os
import tarfile
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from bottleneck.errors import SourceError
from bottleneck.schema import Entry, Signature
from bottleneck.sources import layout, members, webdataset
from bottleneck.sources.layout import LAYOUTS, Layout
from bottleneck.sources.members import Members, OpenFile
from bottleneck.sources.reading import FILE, reason_of
from bottleneck.sources.webdataset import LabelFiles
from bottleneck.system.durable import shown

#: Endings of tars that cannot be read at random places.
PACKED_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")
_UNSOUND = (zipfile.BadZipFile, tarfile.TarError, EOFError, ValueError, OverflowError, NotImplementedError)


class _Opened:
    """The open archive of one process; a pickle carries none of it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.members: Members | None = None
        self.passed: Counter[str] = Counter()

    def __reduce__(self) -> tuple[Any, ...]:
        return (_Opened, ())


@dataclass(frozen=True)
class _ArchiveSource(abc.ABC):
    """What zips and tars share: one listing a process."""

    location: str
    _opened: _Opened = field(default_factory=_Opened, init=False, repr=False, compare=False)
    _kind: ClassVar[str]

    @classmethod
    def open(cls, location: str) -> Self:
        """Open the archive at `location`. Raises `SourceError`: damaged, encrypted or compressed."""
        source = cls(os.path.abspath(location))
        source._list()
        return source

    def layout(self) -> Layout:
        """Say how the folders inside are read."""
        listed = self._list()
        if self._label_files(listed):
            return Layout("flat", note="WebDataset: labels from .cls and .json files")
        return members.layout_of(listed.by_path)

    def entries(self) -> Iterator[Entry]:
        """List every file in the archive. Raises `SourceError`."""
        passed = self._opened.passed
        passed.clear()
        listed = self._list(again=True)
        passed.update(listed.passed)
        labels = self._label_files(listed)
        placing = Layout("flat") if labels else members.layout_of(listed.by_path)
        for path, member in listed.by_path.items():
            reason = layout.skipped(path)
            if reason or path in labels.members:
                passed[reason or "label file of WebDataset"] += 1
            elif labels:
                yield Entry(path, member.signature, *labels.read_labels(path, self.read, self.location))
            else:
                label, split = placing.place(path.rpartition(b"/")[0])
                yield Entry(path, member.signature, label, None, split)

    @abc.abstractmethod
    def read(self, path: bytes) -> bytes:
        """Read one member. Raises OSError or `Rejected`."""

    def passed_over(self) -> Mapping[str, int]:
        """Count what the last `entries()` left out, by reason."""
        return dict(self._opened.passed)

    @abc.abstractmethod
    def _list_members(self, file: OpenFile) -> Members: ...

    def _label_files(self, listed: Members) -> LabelFiles:
        return LabelFiles(frozenset())

    def _list(self, *, again: bool = False) -> Members:
        """List the members once a process; again when the archive has changed."""
        opened, location = self._opened, self.location
        with opened.lock:
            listed = opened.members
            if listed is not None and not (again and listed.status != _status(location)):
                return listed
            _refuse_packed(location)
            try:
                opened.members = self._list_members(OpenFile(os.open(location, FILE)))
            except OSError as error:
                raise SourceError(
                    f"{shown(location)}: the archive cannot be read: {reason_of(error)}"
                ) from error
            except _UNSOUND as error:
                raise SourceError(
                    f"{shown(location)}: this is no sound {self._kind}: {error}; fetch or pack it again; "
                    f"expected {LAYOUTS}"
                ) from error
            return opened.members


class ZipSource(_ArchiveSource):
    """The images in a zip, laid out as in a folder.

    A single folder around everything is looked through.

    Parameters
    ----------
    location : str
        Absolute path of the archive.

    Examples
    --------
    >>> import os, tempfile, zipfile
    >>> path = os.path.join(tempfile.mkdtemp(), "images.zip")
    >>> with zipfile.ZipFile(path, "w") as archive:
    ...     archive.writestr("cats/1.png", b"...")
    ...     archive.writestr("dogs/1.png", b"...")
    >>> source = ZipSource.open(path)
    >>> [(entry.path, entry.label, source.read(entry.path)) for entry in source.entries()]
    [(b'cats/1.png', 'cats', b'...'), (b'dogs/1.png', 'dogs', b'...')]
    """

    _kind = "zip"

    @classmethod
    def claims(cls, location: str) -> bool:
        """Take files called ``.zip``, in any case."""
        return location.lower().endswith(".zip") and os.path.isfile(location)

    def read(self, path: bytes) -> bytes:
        """Read one member, checked against its CRC. Raises OSError or `Rejected`."""
        listed = self._list()
        return members.read_zip_member(listed.file, path, listed.find(path))

    def _list_members(self, file: OpenFile) -> Members:
        return members.list_zip(file, self.location)


class TarSource(_ArchiveSource):
    """The images in a plain tar, as WebDataset or as folders.

    WebDataset: ``key.jpg`` takes its label from ``key.cls`` (its text) or ``key.json`` (see
    `bottleneck.sources.webdataset`). A compressed tar has no random access and is refused.

    Parameters
    ----------
    location : str
        Absolute path of the archive.

    Examples
    --------
    >>> import io, os, tarfile, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "images.tar")
    >>> with tarfile.open(path, "w") as archive:
    ...     for name, data in (("0001.png", b"..."), ("0001.cls", b"7")):
    ...         member = tarfile.TarInfo(name)
    ...         member.size = len(data)
    ...         archive.addfile(member, io.BytesIO(data))
    >>> [(entry.path, entry.label) for entry in TarSource.open(path).entries()]
    [(b'0001.png', '7')]
    """

    _kind = "tar"

    @classmethod
    def claims(cls, location: str) -> bool:
        """Take files called ``.tar``, and compressed tars, to explain the refusal."""
        return location.lower().endswith((".tar", *PACKED_TARS)) and os.path.isfile(location)

    def read(self, path: bytes) -> bytes:
        """Read one member. Raises OSError or `Rejected`."""
        listed = self._list()
        return members.read_tar_member(listed.file, listed.find(path))

    def _list_members(self, file: OpenFile) -> Members:
        return members.list_tar(file, self.location)

    def _label_files(self, listed: Members) -> LabelFiles:
        return webdataset.label_files(listed.by_path)


def _status(location: str) -> Signature | None:
    try:
        return members.status_of(location)
    except OSError:
        return None


def _refuse_packed(location: str) -> None:
    try:
        with open(location, "rb") as file:
            head = file.read(6)
    except OSError as error:
        raise SourceError(f"{shown(location)}: the archive cannot be read: {reason_of(error)}") from error
    magics = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}
    for magic, tool in magics.items():
        if head.startswith(magic):
            raise SourceError(
                f"{shown(location)}: a compressed tar cannot be read at random places; "
                f"decompress it first ({tool}) and give the plain .tar"
            )
