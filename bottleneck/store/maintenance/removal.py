"""Remove files of a store: the record first, then what it names.

Whoever removes is the store's only housekeeper, and looks again while nobody commits: see `housekeeping`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from bottleneck.errors import BottleneckError
from bottleneck.schema import Record
from bottleneck.store.locks import removing
from bottleneck.store.record import RECORD_NAME, committed_files, read_record
from bottleneck.store.task_locks import TaskLock, TaskLocks
from bottleneck.system.durable import sync_folder

#: So many files go at a time: builders wait meanwhile.
_AT_ONCE = 500

_T = TypeVar("_T")


@dataclass
class Removal:
    """What went, and what could not.

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
            return True  # what it stood for goes
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


def sizes_of(folder: Path, names: Iterable[str]) -> int:
    """Sum the bytes of those files `names` in `folder` that exist."""
    total = 0
    for name in names:
        with contextlib.suppress(OSError):
            total += (folder / name).lstat().st_size
    return total
