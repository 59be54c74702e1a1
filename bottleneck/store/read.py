"""Open a store: its sound records, an index, and rows checked first."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bottleneck.errors import NewerFormat, ReadFailure, StoreError
from bottleneck.schema import Cache, Record, RejectedContent, StoreSpec
from bottleneck.schema.strict_json import MalformedDocument
from bottleneck.store.content_index import Index
from bottleneck.store.header import StoreHeader, find_store
from bottleneck.store.locks import reading
from bottleneck.store.mapped import Shards
from bottleneck.store.record import RECORD_NAME, attempt_of, check_fits, precedence, read_record, superseded
from bottleneck.store.remote import Mirror, mirror
from bottleneck.store.rows import Rows
from bottleneck.store.shard_file import TYPES, ShardFile, is_absence

#: How often the folder is looked at before records that are gone count as lost.
_LOOKS = 3


@dataclass(frozen=True, eq=False)
class Store:
    """The sound records of one recipe when the store was opened.

    Attributes
    ----------
    folder : Path
    header : Header
    shards : Shards
        Their rows, numbered through; ``shards.files`` are the files, one a record.
    rejected : mapping of bytes to RejectedContent
        Contents, (32,) bytes, that have no row because of their bytes.
    suspects : mapping of bytes to RejectedContent
        Contents that have none because of circumstances: tried again, final ones only under others.
    tried : mapping of bytes to frozenset of str
        Under which circumstances suspects were tried in vain, as far as records say so.
    given_up : mapping of bytes to frozenset of str
        Those of these circumstances under which they are not tried again.
    damaged : mapping of str to str
        Record name to what is wrong with it: its images count as missing.
    """

    folder: Path
    header: StoreHeader
    shards: Shards
    rejected: Mapping[bytes, RejectedContent]
    suspects: Mapping[bytes, RejectedContent]
    tried: Mapping[bytes, frozenset[str]]
    given_up: Mapping[bytes, frozenset[str]]
    damaged: Mapping[str, str]
    index: Index = field(repr=False)

    @property
    def spec(self) -> StoreSpec:
        """What the rows are."""
        return self.header.spec

    def __len__(self) -> int:
        return len(self.index)

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Find where each content's row is.

        Parameters
        ----------
        keys : numpy.ndarray
            (n, 32) uint8.

        Returns
        -------
        numpy.ndarray
            (n,) int64 positions for `gather` and `rows`, -1 where the store has no row.
        """
        return self.index.find(keys)

    def known(self, keys: np.ndarray) -> np.ndarray:
        """Tell which contents have a row or a lasting rejection: (n,) bool."""
        known = self.find(keys) >= 0
        if self.rejected:
            missing = np.flatnonzero(~known)
            known[missing] = [keys[i].tobytes() in self.rejected for i in missing]
        return known

    def rows(self, positions: np.ndarray) -> Rows:
        """Give an array-like over rows at `positions`; read nothing yet.

        Raises
        ------
        StoreError
            A position is -1.
        """
        lost = int((positions < 0).sum())
        if lost:
            raise StoreError(f"{lost} of {len(positions)} contents have no row in {self.folder}")
        return Rows(self.shards, self.index.numbers[positions], self.spec.shape)

    def gather(self, positions: np.ndarray) -> np.ndarray:
        """Read the rows at `positions`, each block checked before its first use.

        Parameters
        ----------
        positions : numpy.ndarray
            (n,) from `find`, none of them -1.

        Returns
        -------
        numpy.ndarray
            (n, *shape) of the storage dtype.

        Raises
        ------
        DamagedShard
            Names the shard and its rows.
        ReadFailure
            The disk refused the read.
        """
        return self.rows(positions).read()


def open_store(cache: Cache, spec: StoreSpec, *, without: Collection[str] = (), mapped: bool = True) -> Store:
    """Open the store of `spec`; empty where none is. Writes nothing.

    A record that is not sound, or whose files are not whole, is left out and named in `Store.damaged`. One that a sound
    record supersedes is left out without a word. What only the cache at `cache.remote` has is read from there, through
    files in `cache.fetched`.

    Parameters
    ----------
    cache : Cache
    spec : StoreSpec
    without : collection of str
        Names of records to treat as if they were not there.
    mapped : bool
        False reads rows with pread instead of through memory maps.

    Raises
    ------
    NewerFormat
        The store was written by a newer version.
    ReadFailure
        The system refused to read one of its files: that is no reason to hold its rows for lost.
    StoreError
        Its folder cannot be read.
    """
    behind = mirror(cache, spec)
    # A compaction may run between our list and our reads: then the list has changed.
    for _ in range(_LOOKS - 1):
        store, names = _opened(cache, spec, behind, without, mapped)
        if not store.damaged or names == _record_names(store.folder / "shards"):
            return store
    with reading(store.folder):
        return _opened(cache, spec, behind, without, mapped)[0]


def _opened(
    cache: Cache, spec: StoreSpec, behind: Mirror | None, without: Collection[str], mapped: bool
) -> tuple[Store, list[str]]:
    """Open the store once, and list the records' names it then had."""
    try:
        folder, header = find_store(cache, spec)
    except OSError as error:
        raise ReadFailure.of(error.filename or cache.stores, error) from error
    place = folder / "shards"
    with reading(folder):
        # Else a list could miss a new record, and also those that it supersedes, which were removed meanwhile.
        names = _record_names(place)
    records, damaged = _sound_records(place, names, spec, without)
    files = {name: ShardFile(place, record, mapped=mapped) for name, record in records.items()}
    if behind is not None:
        for name in behind.records.keys() - files.keys() - set(without):
            files[name] = behind.file(behind.records[name], mapped=mapped)
        damaged = {name: why for name, why in {**behind.damaged, **damaged}.items() if name not in files}
    files = _kept(files, damaged, ShardFile.check_sizes)
    keys = np.empty((sum(file.record.rows for file in files.values()), 32), np.uint8)
    end = 0

    def read_contents(file: ShardFile) -> None:
        nonlocal end
        if file.record.rows:
            keys[end : end + file.record.rows] = file.content()
            end += file.record.rows

    files = _kept(files, damaged, read_contents)
    replaced = superseded({name: file.record for name, file in files.items()})
    if replaced & files.keys():
        keep = np.repeat([name not in replaced for name in files], [f.record.rows for f in files.values()])
        keys, end = keys[:end][keep], int(keep.sum())
        files = {name: file for name, file in files.items() if name not in replaced}
    # Of several records of one task the later comes last.
    verdicts = [files[name].record.rejected for name in sorted(files, key=attempt_of)]
    index = Index.of(keys[:end])
    lasting, suspects = _without_row(verdicts, index)
    width = int(np.prod(spec.shape, dtype=np.int64))
    store = Store(
        folder,
        header,
        Shards([file for file in files.values() if file.record.rows], width, TYPES[spec.recipe.dtype]),
        lasting,
        suspects,
        _circumstances(verdicts, final=False),
        _circumstances(verdicts, final=True),
        {name: why for name, why in damaged.items() if name not in replaced},
        index,
    )
    return store, names


def _without_row(
    verdicts: Iterable[Iterable[RejectedContent]], index: Index
) -> tuple[dict[bytes, RejectedContent], dict[bytes, RejectedContent]]:
    """Sort contents without a row into lasting rejections and suspects.

    Of several verdicts lasting ones count first, then final ones, then the last.

    A content that failed once and has a row since is neither.
    """
    latest: dict[bytes, RejectedContent] = {}
    for item in itertools.chain.from_iterable(verdicts):
        content = bytes.fromhex(item.content)
        if content not in latest or precedence(item) >= precedence(latest[content]):
            latest[content] = item
    contents = np.frombuffer(b"".join(latest), np.uint8).reshape(-1, 32)
    latest = {c: item for (c, item), row in zip(latest.items(), index.find(contents), strict=True) if row < 0}
    lasting = {content: item for content, item in latest.items() if not item.retry}
    return lasting, {content: item for content, item in latest.items() if item.retry}


def _circumstances(
    verdicts: Iterable[Iterable[RejectedContent]], *, final: bool
) -> dict[bytes, frozenset[str]]:
    """Map contents to the circumstances tried in vain; `final` ones alone."""
    circumstances: dict[bytes, frozenset[str]] = {}
    for item in itertools.chain.from_iterable(verdicts):
        if item.circumstances and (item.final or not final):
            content = bytes.fromhex(item.content)
            circumstances[content] = circumstances.get(content, frozenset()) | {item.circumstances}
    return circumstances


def _sound_records(
    place: Path, names: Collection[str], spec: StoreSpec, without: Collection[str]
) -> tuple[dict[str, Record], dict[str, str]]:
    records: dict[str, Record] = {}
    damaged: dict[str, str] = {}
    for name in names:
        if name in without:
            continue
        try:
            record = read_record(place, name)
            check_fits(record, spec)
            records[name] = record
        except OSError as error:
            if not is_absence(error):
                raise ReadFailure.of(place / name, error) from error
            damaged[name] = f"{place / name} is gone"
        except NewerFormat:
            raise
        except (MalformedDocument, StoreError) as error:
            damaged[name] = str(error)
    return records, damaged


def _kept(
    files: Mapping[str, ShardFile], damaged: dict[str, str], check: Callable[[ShardFile], None]
) -> dict[str, ShardFile]:
    """Keep `files` that pass `check`; note in `damaged` what others lack."""
    kept: dict[str, ShardFile] = {}
    for name in sorted(files):
        try:
            check(files[name])
            kept[name] = files[name]
        except ReadFailure:
            raise
        except StoreError as error:
            damaged[name] = str(error)
    return kept


def _record_names(folder: Path) -> list[str]:
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(f"{folder} cannot be listed: {error.strerror}") from error
    return sorted(name for name in names if RECORD_NAME.fullmatch(name))
