"""List a cache's stores and one store's files. Reads records, never rows."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bottleneck.errors import NewerFormat, StoreError, UnknownName, UsageError
from bottleneck.schema import Cache, Record
from bottleneck.schema.strict_json import MalformedDocument
from bottleneck.store.header import StoreHeader, read_header
from bottleneck.store.locks import reading
from bottleneck.store.record import RECORD_NAME, check_fits, committed_files, read_record, superseded

_STORE_NAME = re.compile(r".+-[0-9a-f]{12}(-views-[0-9a-f]{8})?")
_PART_NAME = re.compile(r"([0-9a-f]{16})-[0-9a-f]{16}\.(h5|blocks)")
#: What `publish` writes aside: the final name, the process, some digits.
TEMPORARY = re.compile(r"\.(?P<name>.+)\.[0-9]+\.[0-9a-f]{8}\.tmp")


@dataclass(frozen=True, eq=False)
class Listing:
    """One store's folder, as it was at one moment.

    Attributes
    ----------
    folder : Path
    header : Header
    records : mapping of str to Record
        By name: readable, sound in themselves and of this store; the superseded ones too.
    broken : mapping of str to str
        Record name to why it cannot be read as one.
    lacking : mapping of str to str
        Name of a record in `records` to what is wrong with its files, by their names and sizes alone.
    superseded : frozenset of str
        Names of `records` that a whole record stands in for.
    sizes : mapping of str to int
        Shard files and lists of block hashes that are there.
    temporaries : tuple of str
        What was being written when its writer ended, or is being written now.
    """

    folder: Path
    header: StoreHeader
    records: Mapping[str, Record]
    broken: Mapping[str, str]
    lacking: Mapping[str, str]
    superseded: frozenset[str]
    sizes: Mapping[str, int]
    temporaries: tuple[str, ...]

    @property
    def shards(self) -> Path:
        """Where records and shards lie."""
        return self.folder / "shards"

    @property
    def standing(self) -> dict[str, Record]:
        """Records that count: whole by their files' sizes, and not superseded."""
        away = self.superseded | set(self.lacking)
        return {name: record for name, record in self.records.items() if name not in away}

    @property
    def orphans(self) -> list[str]:
        """Files that no record names or, where unreadable, may have named."""
        named = {part for record in self.records.values() for part in committed_files(record)}
        unsure = {name[:16] for name in self.broken}
        return sorted(name for name in self.sizes if name not in named and name[:16] not in unsure)


def store_folders(cache: Cache) -> list[Path]:
    """List every store's folder by name. Raises `StoreError`."""
    try:
        with os.scandir(cache.stores) as entries:
            names = [e.name for e in entries if _STORE_NAME.fullmatch(e.name) and e.is_dir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(f"{cache.stores} cannot be listed: {error.strerror}") from error
    return [cache.stores / name for name in sorted(names)]


def find_folder(cache: Cache, name: str) -> Path:
    """Find the one store that `name` means.

    Its folder's name, the 12 hex digits of its recipe, or a part that is unique.

    Raises
    ------
    UnknownName
        There is none; the nearest are listed.
    UsageError
        Several have that part.
    """
    folders = {folder.name: folder for folder in store_folders(cache)}
    if name in folders:
        return folders[name]
    by_recipe = [known for known in folders if known.endswith(f"-{name}")]
    by_part = [known for known in folders if name in known]
    for matches in (by_recipe, by_part):
        if len(matches) == 1:
            return folders[matches[0]]
    if by_part:
        raise UsageError(
            f"{name!r} may be {len(by_part)} stores: {', '.join(by_part)}; give more of the name"
        )
    raise UnknownName("store", name, folders, "`bottleneck store ls` lists them")


def list_store(folder: Path) -> Listing:
    """List `folder` by names, sizes and records.

    Raises
    ------
    NewerFormat
        The store, or a record in it, was written by a newer version: nothing there should be touched.
    StoreError
        No store, a damaged `recipe.json`, or a folder that cannot be listed.
    """
    header = read_header(folder)
    if header is None:
        raise StoreError(f"{folder} has no recipe.json: it is no store, or one that was never begun")
    with reading(folder):
        return _listed(folder, header)


def _listed(folder: Path, header: StoreHeader) -> Listing:
    records: dict[str, Record] = {}
    broken: dict[str, str] = {}
    sizes: dict[str, int] = {}
    temporaries: list[str] = []
    for name, size in files_in(folder / "shards"):
        if RECORD_NAME.fullmatch(name):
            try:
                record = read_record(folder / "shards", name)
                check_fits(record, header.spec)
                records[name] = record
            except NewerFormat:
                raise
            except FileNotFoundError:
                continue  # removed since it was listed
            except (MalformedDocument, StoreError, OSError) as error:
                broken[name] = str(error)
        elif _PART_NAME.fullmatch(name):
            sizes[name] = size
        elif TEMPORARY.fullmatch(name):
            temporaries.append(name)
    for record in records.values():
        if _lacks(record, sizes):
            # It may have been committed after its files' turn in the list.
            for part in committed_files(record):
                with contextlib.suppress(OSError):
                    sizes[part] = (folder / "shards" / part).lstat().st_size
    lacking = {name: why for name, record in records.items() if (why := _lacks(record, sizes))}
    away = superseded({name: record for name, record in records.items() if name not in lacking})
    return Listing(
        folder, header, records, broken, lacking, frozenset(away & records.keys()), sizes, tuple(temporaries)
    )


def _lacks(record: Record, sizes: Mapping[str, int]) -> str:
    for name, size in committed_files(record).items():
        if name not in sizes:
            return f"{name} is gone"
        if sizes[name] != size:
            return f"{name} has {sizes[name]} bytes; {size} were committed"
    return ""


def sizes_of(folder: Path, names: Iterable[str]) -> int:
    """Sum the bytes of those files `names` in `folder` that exist."""
    total = 0
    for name in names:
        with contextlib.suppress(OSError):
            total += (folder / name).lstat().st_size
    return total


def files_in(folder: Path) -> list[tuple[str, int]]:
    """List names and bytes of files in `folder`, sorted. Raises `StoreError`."""
    files: list[tuple[str, int]] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    files.append((entry.name, entry.stat(follow_symlinks=False).st_size))
                except FileNotFoundError:
                    continue
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(f"{folder} cannot be listed: {error.strerror}") from error
    return sorted(files)
