"""A folder of images, laid out as `bottleneck.sources.layout` says."""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from bottleneck.errors import SourceError
from bottleneck.schema import Entry, Split
from bottleneck.sources import layout
from bottleneck.sources.layout import Layout
from bottleneck.sources.reading import FOLDER, LONGEST, UNSEEN, open_long, read_regular, reason_of, signature
from bottleneck.sources.volumes import Volumes
from bottleneck.system.durable import shown


@dataclass(frozen=True)
class FolderSource:
    """All regular files below a folder, in place.

    Links to files are followed. Links to folders are followed once the real folders have been walked, in
    order of their path, and only to folders not walked yet: what is found, and under which name, does not
    depend on the order in which the system lists names. Where a folder or a file cannot be looked at, an
    entry stands for it whose reading fails: it becomes a rejection of its own, and the rest goes on.

    Parameters
    ----------
    location : str
        Absolute path of the folder.
    """

    location: str
    _passed: Counter[str] = field(default_factory=Counter, init=False, repr=False, compare=False)

    @classmethod
    def claims(cls, location: str) -> bool:
        """Take every folder."""
        return os.path.isdir(location)

    @classmethod
    def open(cls, location: str) -> FolderSource:
        """Open the folder at `location`. Raises `SourceError` when it cannot be listed.

        Examples
        --------
        >>> import tempfile
        >>> list(FolderSource.open(tempfile.mkdtemp()).entries())
        []
        """
        source = cls(os.path.abspath(location))
        source.layout()
        return source

    def layout(self) -> Layout:
        """Say how the sub-folders are read. Raises `SourceError`."""
        root = os.fsencode(self.location)
        try:
            with _scan_folder(root) as names:
                tops = [e.name for e in names if layout.skipped_folder(_raw(e)) is None and _is_folder(e)]
        except OSError as error:
            raise SourceError(f"{shown(root)}: the folder cannot be listed: {reason_of(error)}") from error
        return layout.decide(
            {
                name: layout.split_of(name) is not None and _holds_folders(root + b"/" + name)
                for name in map(os.fsencode, tops)
            }
        )

    def entries(self) -> Iterator[Entry]:
        """Stream every regular file, one open folder at a time. Raises `SourceError`."""
        placing = self.layout()
        passed = self._passed
        passed.clear()
        root = os.fsencode(self.location)
        at_root = os.stat(root)
        walked = {(at_root.st_dev, at_root.st_ino)}
        classes: set[str] = set()
        filled: set[str] = set()
        folders: list[bytes] = [b""]
        links: list[tuple[bytes, tuple[int, int]]] = []
        volumes = Volumes()
        while folders or links:
            if not folders:
                links.sort(reverse=True)
                link, identity = links.pop()
                if identity in walked:
                    passed["link to a folder already walked"] += 1
                    continue
                walked.add(identity)
                folders.append(link)
            folder = folders.pop()
            label, split = placing.place(folder)
            if label is not None:
                classes.add(label)
            try:
                for found in self._walk_one(root, folder, label, split, links, walked, volumes):
                    if isinstance(found, Entry):
                        if label is not None:
                            filled.add(label)
                        yield found
                    else:
                        folders.append(found)
            except OSError as error:
                if error.errno == errno.ENOENT:
                    passed["folder that vanished"] += 1
                    continue
                passed["unreadable folder"] += 1
                # `read` of it fails with the same error, so that it ends among the rejections, by name.
                yield Entry(folder or b".", UNSEEN, label, None, split, named=True)
        empty = len(classes - filled)
        if empty:
            passed["class folder without files"] += empty

    def _walk_one(
        self,
        root: bytes,
        folder: bytes,
        label: str | None,
        split: Split | None,
        links: list[tuple[bytes, tuple[int, int]]],
        walked: set[tuple[int, int]],
        volumes: Volumes,
    ) -> Iterator[Entry | bytes]:
        """Give a folder's files as entries, sub-folders as paths; add to `links`."""
        passed = self._passed
        start = folder + b"/" if folder else b""
        here = root + b"/" + folder if folder else root
        with _scan_folder(here) as names:
            for name in names:
                raw = _raw(name)
                is_link = name.is_symlink()
                try:
                    status = name.stat(follow_symlinks=is_link)
                except OSError as error:
                    reason = layout.skipped_file(raw) or (_dangling(error) if is_link else None)
                    if reason or error.errno == errno.ENOENT:
                        passed[reason or "file that vanished"] += 1
                    else:
                        yield Entry(start + raw, UNSEEN, label, None, split)
                    continue
                mode = status.st_mode
                if stat.S_ISREG(mode):
                    reason = layout.skipped_file(raw)
                    if reason:
                        passed[reason] += 1
                    else:
                        volume = volumes.number_of(here + b"/" + raw, status.st_dev)
                        yield Entry(start + raw, signature(status, volume), label, None, split)
                elif stat.S_ISDIR(mode):
                    reason = layout.skipped_folder(raw)
                    identity = (status.st_dev, status.st_ino)
                    if reason:
                        passed[reason] += 1
                    elif is_link:
                        links.append((start + raw, identity))
                    elif identity in walked:
                        passed["folder already walked"] += 1
                    else:
                        walked.add(identity)
                        yield start + raw
                else:
                    passed["FIFO, socket or device"] += 1

    def read(self, path: bytes) -> bytes:
        """Read one file. Raises OSError, or `Rejected` for no regular file."""
        return read_regular(os.fsencode(self.location) + b"/" + path)

    def passed_over(self) -> Mapping[str, int]:
        """Count what the last `entries()` left out, by reason."""
        return dict(self._passed)


@contextmanager
def _scan_folder(folder: bytes) -> Iterator[Iterator[os.DirEntry[bytes] | os.DirEntry[str]]]:
    """Scan a folder by a path of any length."""
    if len(folder) <= LONGEST:
        with os.scandir(folder) as names:
            yield names
        return
    descriptor = open_long(folder, FOLDER)
    try:
        with os.scandir(descriptor) as texts:
            yield texts
    finally:
        os.close(descriptor)


def _raw(name: os.DirEntry[bytes] | os.DirEntry[str]) -> bytes:
    return os.fsencode(name.name)


def _is_folder(name: os.DirEntry[bytes] | os.DirEntry[str]) -> bool:
    try:
        return name.is_dir()
    except OSError:  # a link in a circle
        return False


def _holds_folders(folder: bytes) -> bool:
    try:
        with _scan_folder(folder) as names:
            return any(layout.skipped_folder(_raw(name)) is None and _is_folder(name) for name in names)
    except OSError:  # the walk says what is wrong with it
        return False


def _dangling(error: OSError) -> str | None:
    if error.errno == errno.ELOOP:
        return "link in a circle"
    return "link that leads nowhere" if error.errno in (errno.ENOENT, errno.ENOTDIR) else None
