"""Taking files out of a store: the record first, durably, then what it stood for. What cannot go is named."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bottleneck.errors import BottleneckError
from bottleneck.files import sync_folder
from bottleneck.schema import Record
from bottleneck.store.listing import parts_of
from bottleneck.store.locks import Lock, Locks
from bottleneck.store.record import RECORD_NAME, read_record


@dataclass
class Removed:
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
        """Remove one file; True when it is gone. Never raises for a file that will not go."""
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
        """Remove `records` and then their parts; killed in between, it leaves parts that no record names."""
        gone = [record for name, record in records.items() if self.file(folder / name)]
        if not gone:
            return
        # A record that came back after a power cut would name files that are gone.
        sync_folder(folder)
        still = named_now(folder, {record.id for record in gone})
        for part in sorted({part for record in gone for part in parts_of(record)} - still):
            self.file(folder / part)


def named_now(folder: Path, ids: set[str]) -> set[str]:
    """Parts that records of these ids name at this moment: one that stands in for another may name the same file."""
    named: set[str] = set()
    for name in os.listdir(folder):
        if RECORD_NAME.fullmatch(name) and name[:16] in ids:
            with contextlib.suppress(OSError, BottleneckError):
                named.update(parts_of(read_record(folder, name)))
    return named


@contextlib.contextmanager
def unheld(folder: Path, identity: str) -> Iterator[bool]:
    """Whether nobody works at task `identity` of the store in `folder`; nobody else begins to while this is held.

    Makes no lock file: a lock that does not exist holds nobody. Locks only save work, and a shard that loses its file
    before its record comes is a miss, computed again.
    """
    locks = Locks(folder / "locks")
    held: list[Lock | None] = []
    for path in sorted((folder / "locks").glob(f"{identity}*.lock")) if identity else ():
        task, _, attempt = path.stem.partition(".")
        held.append(locks.take(task, int(attempt) if attempt.isdigit() else 0))
    try:
        yield None not in held
    finally:
        for lock in held:
            if lock is not None:
                lock.release()


def sizes_of(folder: Path, names: Iterable[str]) -> int:
    """Bytes of the files `names` in `folder` that are there."""
    total = 0
    for name in names:
        with contextlib.suppress(OSError):
            total += (folder / name).lstat().st_size
    return total
