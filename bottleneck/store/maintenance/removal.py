"""Remove files of a store that nothing needs: records before their files.

Whoever removes is the store's only housekeeper, and looks again while nobody commits: see `locks`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from bottleneck.errors import BottleneckError
from bottleneck.schema import Cache, Record
from bottleneck.store.listing import TEMPORARY, Listing
from bottleneck.store.locks import removing
from bottleneck.store.plan_files import read_plans
from bottleneck.store.read import open_store
from bottleneck.store.record import RECORD_NAME, committed_files, read_record
from bottleneck.store.task_locks import TaskLock, TaskLocks
from bottleneck.system.durable import sync_folder

#: Files that are removed at a time: builders wait meanwhile.
_AT_ONCE = 500

_T = TypeVar("_T")


@dataclass
class Removal:
    """Files that were removed, and those that could not be.

    Attributes
    ----------
    size : int
        Bytes of the files that went.
    names : list of str
    failed : dict of str to str
        Name to why it is still there: an immutable file, a read-only folder.
    """

    size: int = 0
    names: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def file(self, path: Path) -> bool:
        """Remove one file; True when it is gone. Failures are noted."""
        try:
            size = path.lstat().st_size
            path.unlink()
        except FileNotFoundError:
            return True
        except OSError as error:
            self.failed[path.name] = error.strerror or str(error)
            return False
        self.size += size
        self.names.append(path.name)
        return True

    def records(self, folder: Path, records: Mapping[str, Record]) -> None:
        """Remove `records` and then their parts; a kill leaves unnamed parts.

        A record that has changed since it was listed stays.
        """
        for some in _batches(records.items()):
            with removing(folder.parent):
                gone = [r for name, r in some if self._is_still(folder, name, r) and self.file(folder / name)]
                if gone:
                    # A record that came back after a power cut would name files that are gone.
                    sync_folder(folder)
                    self._unnamed(folder, {part for record in gone for part in committed_files(record)})

    def parts(self, folder: Path, parts: Iterable[str]) -> None:
        """Remove those of `parts` that no record names or may name now."""
        for some in _batches(parts):
            with removing(folder.parent):
                self._unnamed(folder, set(some))

    def _unnamed(self, folder: Path, parts: set[str]) -> None:
        for part in sorted(parts - _needed(folder, parts)):
            self.file(folder / part)

    def _is_still(self, folder: Path, name: str, record: Record) -> bool:
        try:
            now: Record | None = read_record(folder, name)
        except FileNotFoundError:
            return True  # its files still have to go
        except (OSError, BottleneckError):
            now = None
        if now != record:
            self.failed[name] = "it is not what it was when the store was listed"
        return now == record


def _batches(items: Iterable[_T]) -> Iterator[tuple[_T, ...]]:
    left = iter(items)
    while some := tuple(itertools.islice(left, _AT_ONCE)):
        yield some


def _needed(folder: Path, parts: set[str]) -> set[str]:
    """Find those of `parts` that a record names or may name now.

    A record that stands in for another may name the same file.
    """
    ids = {part[:16] for part in parts}
    needed: set[str] = set()
    for name in os.listdir(folder):
        if RECORD_NAME.fullmatch(name) and name[:16] in ids:
            try:
                needed.update(committed_files(read_record(folder, name)))
            except FileNotFoundError:
                continue
            except (OSError, BottleneckError):
                needed.update(part for part in parts if part[:16] == name[:16])
    return needed


@contextlib.contextmanager
def task_is_free(folder: Path, identity: str) -> Iterator[bool]:
    """Keep others from task `identity`; tell whether nobody works at it.

    Makes no lock file: a lock that does not exist keeps nobody away. Locks only save work, and a shard that loses its
    file before its record comes is a miss, computed again.
    """
    locks = TaskLocks(folder / "locks")
    taken: list[TaskLock | None] = []
    for path in sorted((folder / "locks").glob(f"{identity}*.lock")) if identity else ():
        task, _, attempt = path.stem.partition(".")
        taken.append(locks.take(task, int(attempt) if attempt.isdigit() else 0))
    try:
        yield None not in taken
    finally:
        for lock in taken:
            if lock is not None:
                lock.release()


def find_leftovers(listing: Listing) -> tuple[str, ...]:
    """Find files below the store that nothing needs and nobody has locked."""
    names: list[str] = []
    for name in listing.orphans:
        with task_is_free(listing.folder, name[:16]) as free:
            names += [f"shards/{name}"] if free else []
    for name in listing.temporaries:
        match = TEMPORARY.fullmatch(name)
        with task_is_free(listing.folder, match["name"][:16] if match else "") as free:
            names += [f"shards/{name}"] if free else []
    names += [
        f"{p.parent.name}/{p.name}" for sub in ("plans", "log") for p in _temporaries(listing.folder / sub)
    ]
    names += [path.name for path in _temporaries(listing.folder)]
    names += [f"plans/{name}" for name in _finished_plans(listing)]
    for path in sorted((listing.folder / "locks").glob("*.lock")):
        with task_is_free(listing.folder, path.stem[:16]) as free:
            names += [f"locks/{path.name}"] if free else []
    return tuple(names)


def _finished_plans(listing: Listing) -> list[str]:
    """Find plans that have no wholly missing task, or are no plans."""
    folder = listing.folder / "plans"
    names = sorted(path.name for path in folder.glob("*.plan"))
    plans = read_plans(folder, 1 << 32)
    finished = [name for name in names if name not in plans]
    if plans:
        store = open_store(Cache(listing.folder.parents[1]), listing.header.spec)
        for name, one in plans.items():
            known = store.known(one.keys)
            if np.logical_or.reduceat(known, np.arange(0, len(known), one.task_rows)).all():
                finished.append(name)
    return finished


def _temporaries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob(".*.tmp") if TEMPORARY.fullmatch(path.name))


def remove_leftovers(listing: Listing, names: tuple[str, ...], removed: Removal) -> None:
    """Remove what `find_leftovers` named, unless it is in use by now."""
    parts: list[str] = []
    for name in names:
        path = listing.folder / name
        match = TEMPORARY.fullmatch(path.name)
        with task_is_free(listing.folder, (match["name"] if match else path.name)[:16]) as free:
            if not free:
                continue
            if path.parent == listing.shards and not match:
                parts.append(path.name)
            else:
                with removing(listing.folder):
                    removed.file(path)
    # A builder may have begun one of these tasks since: it then commits before or after this removal.
    removed.parts(listing.shards, parts)
