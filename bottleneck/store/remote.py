"""Read what the cache lacks from a cache behind a URL.

When a store is opened, its remote records are fetched with their block hashes and contents; a shard's file follows when
one of its rows is first read. All of that lies in a folder apart from the cache's stores, and may be removed at any
time. Nothing remote is trusted: records carry their own hash, and everything else is checked against a record before it
gets its name here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bottleneck.errors import DamagedShard, NewerFormat, ReadFailure, RemoteError, StoreError
from bottleneck.schema import Cache, Record, StoreSpec
from bottleneck.schema.strict_json import MalformedDocument
from bottleneck.store.canary import CANARY
from bottleneck.store.header import find_store
from bottleneck.store.locations import (
    RECIPE,
    SHARDS,
    FolderLocation,
    StoreLocation,
    locate_store,
    store_locations,
)
from bottleneck.store.record import (
    RECORD_NAME,
    check_fits,
    count_blocks,
    hash_content,
    parse_record,
    read_file,
)
from bottleneck.store.shard_file import ShardFile
from bottleneck.system import objects
from bottleneck.system.addresses import redact
from bottleneck.system.durable import publish

_AT_ONCE = 16


@dataclass(frozen=True)
class Mirror:
    """What is known here of one store behind a URL.

    Attributes
    ----------
    folder : Path
        Where its records, block hashes, contents and fetched shards lie on this machine.
    url : str
        Its ``shards/``.
    records : mapping of str to Record
    damaged : mapping of str to str
        Name of a record there to why it does not count.
    """

    folder: Path
    url: str
    records: Mapping[str, Record]
    damaged: Mapping[str, str]

    def file(self, record: Record, *, mapped: bool) -> ShardFile:
        """The files of one of `records`."""
        return RemoteShard(self.folder, record, self.url, mapped=mapped)


class RemoteShard(ShardFile):
    """A shard that is fetched and checked whole when first opened."""

    def __init__(self, folder: Path, record: Record, url: str, *, mapped: bool = True) -> None:
        super().__init__(folder, record, mapped=mapped)
        self._url = url

    def _parts(self) -> list[tuple[str, str, int]]:
        return [part for part in super()._parts() if part[1] != self.record.shard]

    def content(self) -> np.ndarray:
        """Read contents (rows, 32) from the file beside, without the shard."""
        record = self.record
        try:
            raw = read_file(self.folder, _content_name(record), record.rows * 32)
        except OSError as error:
            raise ReadFailure.of(self.folder / _content_name(record), error) from error
        if hash_content(record.id, raw) != record.content_sha256:
            (self.folder / _content_name(record)).unlink(missing_ok=True)
            raise self.damaged("its content column is not what was committed")
        return np.frombuffer(raw, np.uint8).reshape(-1, 32)

    def damaged(self, what: str, first: int = 0, stop: int | None = None) -> DamagedShard:
        """As `ShardFile`; the remedy is another."""
        return DamagedShard(
            f"shard {self.record.id} from {redact(self._url)}: {what}. No such row is served; remove {self.folder}, "
            "and all of it is fetched anew; if that does not help, copy the store there again (`bottleneck store "
            "copy`)",
            shard=self.record.id,
            rows=(first, self.record.rows if stop is None else stop),
        )

    def _before_opening(self) -> None:
        path = self.folder / self.record.shard
        if path.exists():
            return
        url = objects.join_url(self._url, self.record.shard)

        def whole(aside: Path) -> None:
            with aside.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != self.record.file_sha256:
                raise self.damaged(f"what lies at {redact(url)} is not what was committed")

        try:
            objects.fetch_object(url, path, whole)
        except FileNotFoundError as error:
            raise self.damaged(f"its file is gone from {redact(url)}") from error
        except OSError as error:
            raise ReadFailure.of(path, error) from error
        except RemoteError as error:
            raise StoreError(str(error)) from error


def mirror(cache: Cache, spec: StoreSpec) -> Mirror | None:
    """Fetch what a reader of `spec`'s store needs from `cache.remote`, if anything.

    Raises
    ------
    NewerFormat
        The store there is of a newer version.
    StoreError
        It cannot be reached, or is of another recipe; or nothing can be written here.
    """
    if cache.remote is None:
        return None
    remote, header = locate_store(cache.remote, spec)
    if header is None:
        if not store_locations(cache.remote):
            url = redact(cache.remote)
            raise StoreError(
                f"{url}: no cache lies there; `bottleneck store copy {url}` writes one, with stores/ below that URL"
            )
        return None
    # Its header and canary are this store's too: whoever appends keeps to its batch shape and environment.
    here = FolderLocation(find_store(cache, spec)[0])
    for name in (RECIPE, CANARY):
        if here.read(name) is None:
            data = remote.read(name)
            if data is not None:
                here.write(name, data)
    url = objects.join_url(remote.url, SHARDS)
    mark = hashlib.sha256(redact(url).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    folder = cache.fetched / f"{Path(remote.name).name}-{mark}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        records, damaged = _refreshed(folder, remote, spec)
    except OSError as error:
        raise StoreError(f"{folder}, where fetched files are kept: {error.strerror or error}") from error
    return Mirror(folder, url, records, damaged)


def _refreshed(
    folder: Path, remote: StoreLocation, spec: StoreSpec
) -> tuple[dict[str, Record], dict[str, str]]:
    sizes = remote.sizes()
    names = sorted(filter(RECORD_NAME.fullmatch, sizes))
    for path in folder.glob("*.json"):
        if path.name not in sizes:
            path.unlink(missing_ok=True)  # compacted or pruned there since

    def bring(name: str) -> Record | str:
        try:
            return _bring(folder, remote, name, spec)
        except NewerFormat:
            raise
        except (MalformedDocument, StoreError) as error:
            return str(error)

    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="fetch") as pool:
        results = dict(zip(names, pool.map(bring, names), strict=True))
    return (
        {name: record for name, record in results.items() if isinstance(record, Record)},
        {name: why for name, why in results.items() if isinstance(why, str)},
    )


def _bring(folder: Path, remote: StoreLocation, name: str, spec: StoreSpec) -> Record:
    """Read one record with its block hashes and contents, here or there."""
    try:
        record = parse_record(name, read_file(folder, name, None), name)
    except (FileNotFoundError, MalformedDocument):
        data = remote.read(f"{SHARDS}/{name}")
        if data is None:
            raise StoreError("it was removed while the store was opened") from None
        record = parse_record(name, data, f"{remote.name}/{SHARDS}/{name}")
    else:
        data = None
    check_fits(record, spec)
    if record.rows:
        blocks = 32 * count_blocks(record)
        if not _is_here(folder / record.blocks, blocks):
            listing = remote.read(f"{SHARDS}/{record.blocks}", blocks)
            if listing is None or hashlib.sha256(listing).hexdigest() != record.blocks_root:
                raise StoreError(f"{remote.name}: {record.blocks} is gone, or not what was committed")
            publish(folder / record.blocks, listing, replace=True)
        if not _is_here(folder / _content_name(record), 32 * record.rows):
            content = _content(remote, record)
            if content is None or hash_content(record.id, content) != record.content_sha256:
                raise StoreError(
                    f"{remote.name}: the content column of {record.shard} is gone, or not what was committed"
                )
            publish(folder / _content_name(record), content, replace=True)
    if data is not None:
        publish(folder / name, data, replace=True)
    return record


def _content(remote: StoreLocation, record: Record) -> bytes | None:
    """Read the content column alone out of the remote shard."""
    url = objects.join_url(remote.url, f"{SHARDS}/{record.shard}")
    start, end = record.content_offset, record.content_offset + 32 * record.rows
    try:
        data = objects.read_object(url, start, end)
    except FileNotFoundError:
        return None
    except (OSError, RemoteError) as error:
        raise StoreError(f"{redact(url)}: {error}") from error
    # A web server may not know of ranges and send all of it.
    return data[start:end] if len(data) == record.file_bytes else data


def _content_name(record: Record) -> str:
    return record.shard.removesuffix(".h5") + ".content"


def _is_here(path: Path, size: int) -> bool:
    try:
        return path.lstat().st_size == size
    except OSError:
        return False
