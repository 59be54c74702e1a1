"""Read and check commit records: a shard counts by its sound record."""

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
from bottleneck.schema import RECORD_FORMAT, Frozen, Record, RejectedContent, StoreSpec, canonical_json
from bottleneck.schema.strict_json import MalformedDocument, loads, validate

#: `<id>.json`, or `<id>.<k>.json` for one that stands in for a damaged shard.
RECORD_NAME = re.compile(r"([0-9a-f]{16})(?:\.([1-9][0-9]{0,2}))?\.json")

#: Without following links and without waiting on devices: a store folder may come from anywhere.
READ_FLAGS = (
    os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
)

_BLOCK_BYTES = 256 << 10
MOST_RECORD_BYTES = 64 << 20


def block_rows(row_bytes: int) -> int:
    """Give the rows of one hashed block: about 256 KiB."""
    return max(1, _BLOCK_BYTES // max(1, row_bytes))


def hash_block(identity: str, position: int, data: bytes | memoryview) -> bytes:
    """Hash a block with its place: right bytes elsewhere are wrong.

    Examples
    --------
    >>> hash_block("a" * 16, 0, b"rows") == hash_block("a" * 16, 1, b"rows")
    False
    """
    digest = hashlib.sha256(b"bottleneck block 1\n%s\n%d\n" % (identity.encode("ascii"), position))
    digest.update(data)
    return digest.digest()


def hash_content(identity: str, data: bytes | memoryview) -> str:
    """Hash the content column with its shard."""
    return hash_block(identity, -1, data).hex()


def hash_blocks(identity: str, features: np.ndarray, rows_a_block: int) -> list[bytes]:
    """Hash each block of `features` (n, *shape), in order."""
    starts = range(0, len(features), rows_a_block)
    return [
        hash_block(identity, position, features[start : start + rows_a_block].tobytes())
        for position, start in enumerate(starts)
    ]


def root_of(blocks: Sequence[bytes]) -> str:
    """Hash the block hashes in order."""
    return hashlib.sha256(b"".join(blocks)).hexdigest()


def committed_files(record: Record) -> dict[str, int]:
    """Map the names of `record`'s files to their sizes."""
    return {record.shard: record.file_bytes, record.blocks: 32 * count_blocks(record)} if record.rows else {}


def count_blocks(record: Record) -> int:
    """Count the hashed blocks of a shard."""
    return -(-record.rows // record.block_rows)


def attempt_of(name: str) -> int:
    """Count which of its task's records `name` is, from 0."""
    match = RECORD_NAME.fullmatch(name)
    return int(match[2] or 0) if match else 0


def precedence(item: RejectedContent) -> tuple[bool, bool, bool]:
    """Rank how much a rejection says, among several of one content."""
    return not item.retry, item.final, bool(item.circumstances)


def superseded(records: Mapping[str, Record]) -> set[str]:
    """Name records, in `records` or not, that `records` stand in for.

    Records that stand in for one another in a circle all count. Earlier versions could make such a circle by
    compacting, pruning and copying in turn.
    """
    replaced = {old for record in records.values() for old in record.supersedes} & records.keys()
    replaced_names: set[str] = set()
    pending = [old for name, record in records.items() if name not in replaced for old in record.supersedes]
    while pending:
        name = pending.pop()
        if name not in replaced_names:
            replaced_names.add(name)
            pending += records[name].supersedes if name in records else ()
    return replaced_names


def is_committed(folder: Path, name: str, spec: StoreSpec) -> bool:
    """Tell whether record and shard exist, by size; serving checks the rows."""
    try:
        record = read_record(folder, name)
        check_fits(record, spec)
        return not record.rows or (folder / record.shard).lstat().st_size == record.file_bytes
    except (OSError, MalformedDocument, StoreError):
        return False


def check_fits(record: Record, spec: StoreSpec) -> None:
    """Check that `record` is of this store. Raises `MalformedDocument`."""
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
    """Write a record or header as readable JSON with its own hash."""
    document = value.model_dump(mode="json")
    own = hashlib.sha256(canonical_json(document)).hexdigest()
    return (
        json.dumps({**document, "self": own}, indent=1, sort_keys=True, allow_nan=False).encode("ascii")
        + b"\n"
    )


def unseal(document: dict[str, Any]) -> None:
    """Remove the document's own hash. Raises `MalformedDocument` at a wrong one."""
    own = document.pop("self", None)
    try:
        whole = own == hashlib.sha256(canonical_json(document)).hexdigest()
    except ValueError as error:
        raise MalformedDocument(str(error)) from error
    if not whole:
        raise MalformedDocument("its own hash does not fit")


def read_record(folder: Path, name: str) -> Record:
    """Read the record in `folder`/`name`.

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
    """Parse the record in file `name`. Raises as `read_record`, without OSError."""
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
    """Read a regular file `name` in `folder`, of `size` bytes if given."""
    if "/" in name or name.startswith(".") or "\0" in name:
        raise StoreError(f"{name!r} is no name of a file in a store")
    try:
        descriptor = os.open(folder / name, READ_FLAGS)
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


def read_range(descriptor: int, start: int, stop: int) -> bytes:
    """Read bytes `start` to `stop`; fewer where the file ends."""
    parts: list[bytes] = []
    # In pieces: one call gives at most 2 GiB, and may always give less than was asked for.
    while start < stop and (part := os.pread(descriptor, min(stop - start, 1 << 30), start)):
        parts.append(part)
        start += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
