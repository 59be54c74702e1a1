"""Publish a shard so that it counts whole or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bottleneck.errors import StoreError
from bottleneck.schema import Record, RejectedContent, Rounding, StoreSpec
from bottleneck.schema.strict_json import MalformedDocument
from bottleneck.store.locks import committing
from bottleneck.store.record import (
    block_rows,
    check_fits,
    count_blocks,
    hash_blocks,
    hash_content,
    read_file,
    read_record,
    root_of,
    seal,
)
from bottleneck.store.shard import ShardImage, build_shard
from bottleneck.system.durable import publish


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
    supersedes: Sequence[str] = (),
    rounding: Rounding | None = None,
) -> Record:
    """Publish one shard; its record, written last, makes it count.

    A sound record of the same task that is there already wins, and what this call computed is dropped. Where the one
    that is there names damaged files, they are written again when the bytes are the same; else a further record under
    ``<id>.<k>.json`` stands in for it. One without a row that blamed circumstances does not win over a later verdict.

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
    supersedes : sequence of str
        File names of records that this one replaces.
    rounding : Rounding, optional
        What the storage type cost.

    Returns
    -------
    Record
        The record that counts for this task now.

    Raises
    ------
    OSError
        Disk full and its kin: then there is no record, and no shard either.
    """
    image = build_shard(identity, spec, keys, features) if len(keys) else ShardImage(b"", 0, 0)
    rows_a_block = block_rows(spec.row_bytes)
    blocks = hash_blocks(identity, features, rows_a_block)
    record = Record(
        format=2 if any(why.circumstances for why in rejected) else 1,
        id=identity,
        recipe=spec.identity,
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
        supersedes=tuple(supersedes),
        rounding=rounding,
        environment=dict(environment),
        canary=canary,
    )
    with committing(folder.parent):
        return _publish(folder, spec, record, image.data, b"".join(blocks))


def _publish(folder: Path, spec: StoreSpec, record: Record, data: bytes, listing: bytes) -> Record:
    for attempt in range(1000):
        name = f"{record.id}.json" if attempt == 0 else f"{record.id}.{attempt}.json"
        existing = read_sound_record(folder, name, spec)
        if existing is not None and _is_overtaken(existing, record):
            continue
        if existing is not None and existing.file_sha256 != record.file_sha256:
            return existing
        if existing is None and os.path.lexists(folder / name) and not _names_our_files(folder, name, record):
            continue
        # The files have the same bytes, or do not exist yet. A damaged file of this name is replaced by the bytes
        # that its name promises; nothing else is ever replaced.
        for part, content in ((record.shard, data), (record.blocks, listing)):
            if content and not publish(folder / part, content) and not _holds(folder / part, content):
                publish(folder / part, content, replace=True)
        if publish(folder / name, seal(record)):
            return record
        existing = read_sound_record(folder, name, spec)
        if existing is not None and not _is_overtaken(existing, record):
            return existing
    raise StoreError(
        f"shard {record.id}: 1,000 damaged records in {folder}; look at the disk, then move them away"
    )


def _is_overtaken(old: Record, record: Record) -> bool:
    """Tell whether `old` only doubts its contents, and `record` says other things."""
    unsure = {why.content: (why.circumstances, why.final) for why in record.rejected if why.retry}
    return not old.rows and any(
        why.retry and unsure.get(why.content) != (why.circumstances, why.final) for why in old.rejected
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


def read_sound_record(folder: Path, name: str, spec: StoreSpec) -> Record | None:
    """Read the record `name` if it and its files are whole."""
    try:
        record = read_record(folder, name)
        check_fits(record, spec)
        if not record.rows:
            return record
        data = read_file(folder, record.shard, record.file_bytes)
        listing = read_file(folder, record.blocks, 32 * count_blocks(record))
    except (OSError, MalformedDocument, StoreError):
        return None
    whole = hashlib.sha256(data).hexdigest() == record.file_sha256
    return record if whole and hashlib.sha256(listing).hexdigest() == record.blocks_root else None
