"""Commit records: a shard counts when its record exists and is sound. Hashes bind every block of rows to its place."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bottleneck.errors import NewerFormat, StoreError
from bottleneck.schema import (
    RECORD_FORMAT,
    Frozen,
    Record,
    RejectedContent,
    StoreSpec,
    canonical_json,
)
from bottleneck.schema.strict_json import MalformedDocument, loads, validate

#: `<id>.json`, or `<id>.<k>.json` for one that stands in for a damaged shard.
RECORD_NAME = re.compile(r"([0-9a-f]{16})(?:\.([1-9][0-9]{0,2}))?\.json")

_BLOCK_BYTES = 256 << 10
MOST_RECORD_BYTES = 64 << 20


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


def attempt_of(name: str) -> int:
    """Which of its task's records the one of this name is, counted from 0; 0 for what is no record's name."""
    match = RECORD_NAME.fullmatch(name)
    return int(match[2] or 0) if match else 0


def precedence(item: RejectedContent) -> tuple[bool, bool, bool]:
    """How much a rejection says: for order among several of one content."""
    return not item.retry, item.final, bool(item.circumstances)


def superseded(records: Mapping[str, Record]) -> set[str]:
    """Names of records, among `records` or not, that some of `records` stand in for.

    Not of such as stand in for one another in a circle, which earlier versions could bring about by compacting, pruning
    and copying in turn: all of these count.
    """
    replaced = {old for record in records.values() for old in record.supersedes} & records.keys()
    found: set[str] = set()
    pending = [old for name, record in records.items() if name not in replaced for old in record.supersedes]
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending += records[name].supersedes if name in records else ()
    return found


def is_committed(folder: Path, name: str, spec: StoreSpec) -> bool:
    """Whether a record of this name is there, and its shard's file by its size: rows are checked when served."""
    try:
        record = read_record(folder, name)
        check_fits(record, spec)
        return not record.rows or (folder / record.shard).lstat().st_size == record.file_bytes
    except (OSError, MalformedDocument, StoreError):
        return False


def check_fits(record: Record, spec: StoreSpec) -> None:
    """That `record` is of this store and its offsets lie within its file. Raises `MalformedDocument`."""
    if record.recipe != spec.identity:
        raise MalformedDocument(f"of recipe {record.recipe[:12]}, not {spec.identity[:12]}")
    if record.shape != spec.shape or record.dtype != spec.recipe.dtype:
        raise MalformedDocument(
            f"rows of {record.shape} {record.dtype}, not {spec.shape} {spec.recipe.dtype}"
        )
    if not record.rows and record.file_bytes:
        raise MalformedDocument(f"it claims no rows, in a file of {record.file_bytes} bytes")
    end = max(record.features_offset + record.rows * spec.row_bytes, record.content_offset + record.rows * 32)
    if end > record.file_bytes:
        raise MalformedDocument("its offsets lie outside of its file")


def seal(value: Frozen) -> bytes:
    """A record's file, or a header's: readable JSON that carries its own hash."""
    document = value.model_dump(mode="json")
    own = hashlib.sha256(canonical_json(document)).hexdigest()
    return (
        json.dumps({**document, "self": own}, indent=1, sort_keys=True, allow_nan=False).encode("ascii")
        + b"\n"
    )


def unseal(document: dict[str, Any]) -> None:
    """Take the document's own hash out of it. Raises `MalformedDocument` where it does not fit."""
    own = document.pop("self", None)
    try:
        whole = own == hashlib.sha256(canonical_json(document)).hexdigest()
    except ValueError as error:
        raise MalformedDocument(str(error)) from error
    if not whole:
        raise MalformedDocument("its own hash does not fit")


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
    if RECORD_NAME.fullmatch(name) is None:
        raise MalformedDocument(f"{name!r} is no record's name")
    data = read_file(folder, name, None, most=MOST_RECORD_BYTES)
    return parse_record(name, data, str(folder / name))


def parse_record(name: str, data: bytes, where: str) -> Record:
    """The record that the file `name` holds, wherever it was read. Raises as `read_record`, but for OSError."""
    match = RECORD_NAME.fullmatch(name)
    if match is None:
        raise MalformedDocument(f"{name!r} is no record's name")
    document = loads(data, most_bytes=MOST_RECORD_BYTES)
    if not isinstance(document, dict):
        raise MalformedDocument("a record is an object")
    version = document.get("format")
    if isinstance(version, int) and version > RECORD_FORMAT:
        raise NewerFormat(
            f"{where} has format {version}; this version of bottleneck-features reads 1 to {RECORD_FORMAT}: "
            "upgrade it (pip install -U bottleneck-features). Nothing was touched"
        )
    unseal(document)
    record = validate(Record, document)
    if record.id != match[1]:
        raise MalformedDocument(f"it is the record of {record.id}, under another's name")
    return record


def read_file(folder: Path, name: str, size: int | None, *, most: int = 8 << 30) -> bytes:
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
    try:
        descriptor = os.open(folder / name, flags)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket, or a device that nobody drives
            raise StoreError(f"{folder / name} is no regular file") from error
        raise
    try:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            raise StoreError(f"{folder / name} is no regular file")
        if size is not None and state.st_size != size:
            raise StoreError(f"{folder / name} has {state.st_size} bytes; its record says {size}")
        if state.st_size > most:
            raise StoreError(f"{folder / name} has {state.st_size} bytes: no file of its kind is that large")
        try:
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return file.read()
        except OSError as error:
            # The system does not say of which file.
            raise OSError(error.errno, error.strerror, os.fspath(folder / name)) from error
    finally:
        os.close(descriptor)
