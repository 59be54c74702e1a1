"""Commit records: a shard counts when its record exists and is sound. Hashes bind every block of rows to its place."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bottleneck.errors import NewerFormat, StoreError
from bottleneck.files import publish
from bottleneck.schema import Record, RejectedContent, StoreSpec, canonical_json
from bottleneck.store.shard import Image, build
from bottleneck.strict import MalformedDocument, loads, validate

#: `<id>.json`, or `<id>.<k>.json` for one that stands in for a damaged shard.
RECORD_NAME = re.compile(r"([0-9a-f]{16})(?:\.([1-9][0-9]{0,2}))?\.json")

_BLOCK_BYTES = 256 << 10
_MOST_RECORD_BYTES = 64 << 20


def block_rows(row_bytes: int) -> int:
    """Rows of one hashed block: about 256 KiB, at least one row."""
    return max(1, _BLOCK_BYTES // max(1, row_bytes))


def hash_block(identity: str, position: int, data: bytes | memoryview) -> bytes:
    """sha256 of a block bound to its shard and position, so that a right block in a wrong place is wrong.

    Examples
    --------
    >>> hash_block("a" * 16, 0, b"rows") == hash_block("a" * 16, 1, b"rows")
    False
    """
    digest = hashlib.sha256(b"bottleneck block 1\n%s\n%d\n" % (identity.encode("ascii"), position))
    digest.update(data)
    return digest.digest()


def hash_content(identity: str, data: bytes | memoryview) -> str:
    """Hash of the content column, bound to its shard."""
    return hash_block(identity, -1, data).hex()


def hash_blocks(identity: str, features: np.ndarray, rows_a_block: int) -> list[bytes]:
    """One hash for each block of `features` (n, *shape), in order."""
    starts = range(0, len(features), rows_a_block)
    return [
        hash_block(identity, position, features[start : start + rows_a_block].tobytes())
        for position, start in enumerate(starts)
    ]


def root_of(blocks: Sequence[bytes]) -> str:
    """sha256 over the block hashes in order."""
    return hashlib.sha256(b"".join(blocks)).hexdigest()


def commit(
    folder: Path,
    identity: str,
    spec: StoreSpec,
    keys: np.ndarray,
    features: np.ndarray,
    *,
    rejected: Sequence[RejectedContent],
    environment: Mapping[str, str],
    canary: str,
) -> Record:
    """Publish one shard: its file, its block hashes, then the record that makes them count.

    A sound record of the same task that is already there wins, and what this call made is dropped. Where the one
    that is there names damaged files, they are put right when the bytes are the same, else a further record under
    ``<id>.<k>.json`` stands in for it.

    Parameters
    ----------
    folder : Path
        The store's ``shards/``.
    identity : str
        16 hex digits: the task's id.
    keys : numpy.ndarray
        (n, 32) uint8.
    features : numpy.ndarray
        (n, *spec.shape) of the storage dtype; n may be 0 when every image was rejected.
    rejected : sequence of RejectedContent
    environment : mapping of str to str
        What the bits depend on.
    canary : str
        sha256 of the canary rows in this environment.

    Returns
    -------
    Record
        The record that counts for this task now.

    Raises
    ------
    OSError
        Disk full and its kin: then there is no record, and no shard either.
    """
    image = build(identity, spec, keys, features) if len(keys) else Image(b"", 0, 0)
    rows_a_block = block_rows(spec.row_bytes)
    blocks = hash_blocks(identity, features, rows_a_block)
    record = Record(
        id=identity,
        recipe=spec.recipe.fingerprint,
        rows=len(keys),
        shape=spec.shape,
        dtype=spec.recipe.dtype,
        file_sha256=hashlib.sha256(image.data).hexdigest(),
        file_bytes=len(image.data),
        features_offset=image.features_offset,
        content_offset=image.content_offset,
        content_sha256=hash_content(identity, keys.tobytes()),
        block_rows=rows_a_block,
        blocks_root=root_of(blocks),
        rejected=tuple(rejected),
        environment=dict(environment),
        canary=canary,
    )
    listing = b"".join(blocks)
    for attempt in range(1000):
        name = f"{identity}.json" if attempt == 0 else f"{identity}.{attempt}.json"
        there = _sound(folder, name)
        if there is not None and there.file_sha256 != record.file_sha256:
            return there
        if there is None and os.path.lexists(folder / name) and not _names_our_files(folder, name, record):
            continue
        # Same bytes, or nothing there yet. A file of this very name that is damaged is replaced by what its
        # name promises; that is the only replacement there is.
        for part, data in ((record.shard, image.data), (record.blocks, listing)):
            if data and not publish(folder / part, data) and not _holds(folder / part, data):
                publish(folder / part, data, replace=True)
        if publish(folder / name, seal(record)):
            return record
        there = _sound(folder, name)
        if there is not None:
            return there
    raise StoreError(
        f"shard {identity}: 1,000 damaged records in {folder}; look at the disk, then move them away"
    )


def _names_our_files(folder: Path, name: str, record: Record) -> bool:
    try:
        return read_record(folder, name).file_sha256 == record.file_sha256
    except (OSError, MalformedDocument):
        return False


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.read_bytes() == data
    except OSError:
        return False


def _sound(folder: Path, name: str) -> Record | None:
    """The record `name` when it and the files that it names are whole, else None."""
    try:
        record = read_record(folder, name)
        if not record.rows:
            return record
        data = read_file(folder, record.shard, record.file_bytes)
        listing = read_file(folder, record.blocks, 32 * -(-record.rows // record.block_rows))
    except (OSError, MalformedDocument, StoreError):
        return None
    whole = hashlib.sha256(data).hexdigest() == record.file_sha256
    return record if whole and hashlib.sha256(listing).hexdigest() == record.blocks_root else None


def seal(record: Record) -> bytes:
    """The record's file: readable JSON that carries its own hash."""
    document = record.model_dump(mode="json")
    own = hashlib.sha256(canonical_json(document)).hexdigest()
    return (
        json.dumps({**document, "self": own}, indent=1, sort_keys=True, allow_nan=False).encode("ascii")
        + b"\n"
    )


def read_record(folder: Path, name: str) -> Record:
    """The record in `folder`/`name`.

    Raises
    ------
    MalformedDocument
        Not a record, not whole, changed since it was written, or under another id's name.
    NewerFormat
        A record of a newer format.
    StoreError
        No regular file.
    OSError
        It cannot be read.
    """
    match = RECORD_NAME.fullmatch(name)
    if match is None:
        raise MalformedDocument(f"{name!r} is no record's name")
    data = read_file(folder, name, None)
    document = loads(data, most_bytes=_MOST_RECORD_BYTES)
    if not isinstance(document, dict):
        raise MalformedDocument("a record is an object")
    version = document.get("format")
    if isinstance(version, int) and version > 1:
        raise NewerFormat(
            f"{folder / name} has format {version}; this version of bottleneck-features reads 1: "
            "upgrade it (pip install -U bottleneck-features). Nothing was touched"
        )
    own = document.pop("self", None)
    try:
        whole = own == hashlib.sha256(canonical_json(document)).hexdigest()
    except ValueError as error:
        raise MalformedDocument(str(error)) from error
    if not whole:
        raise MalformedDocument("its own hash does not fit")
    record = validate(Record, document)
    if record.id != match[1]:
        raise MalformedDocument(f"it is the record of {record.id}, under another's name")
    return record


def read_file(folder: Path, name: str, size: int | None) -> bytes:
    """All bytes of a regular file `name` directly in `folder`, of exactly `size` bytes when one is given.

    Opened without following links and without waiting on devices: a store folder may come from anywhere.
    """
    if "/" in name or name.startswith(".") or "\0" in name:
        raise StoreError(f"{name!r} is no name of a file in a store")
    flags = (
        os.O_RDONLY
        | getattr(os, "O_NOFOLLOW", 0)
        | getattr(os, "O_NONBLOCK", 0)
        | getattr(os, "O_CLOEXEC", 0)
    )
    descriptor = os.open(folder / name, flags)
    with os.fdopen(descriptor, "rb") as file:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            raise StoreError(f"{folder / name} is no regular file")
        if size is not None and state.st_size != size:
            raise StoreError(f"{folder / name} has {state.st_size} bytes; its record says {size}")
        if state.st_size > 8 << 30:
            raise StoreError(f"{folder / name} has {state.st_size} bytes: no file of a store is that large")
        return file.read()
