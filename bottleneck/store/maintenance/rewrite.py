"""Rows of several shards in one new shard, whose record supersedes theirs. What compact and prune both do."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from bottleneck.errors import DamagedShard
from bottleneck.schema import Record, RejectedContent, Rounding
from bottleneck.store.commit import commit
from bottleneck.store.content_index import first_rows
from bottleneck.store.listing import Listing
from bottleneck.store.maintenance.shard_check import read_shard
from bottleneck.store.record import precedence

#: (n, 32) uint8 to (n,) bool.
Keeps = Callable[[np.ndarray], np.ndarray]


def keep_all(keys: np.ndarray) -> np.ndarray:
    """Keeps all rows."""
    return np.ones(len(keys), bool)


def rewrite(listing: Listing, records: Mapping[str, Record], keeps: Keeps = keep_all) -> Record | None:
    """Publish one shard with the kept rows and rejections of `records`; durable, and theirs are superseded, on return.

    For the store's only housekeeper: what `records` name must not go meanwhile.

    Parameters
    ----------
    listing : Listing
    records : mapping of str to Record
        By name, of equal environment and canary.
    keeps : callable
        Which contents stay.

    Returns
    -------
    Record or None
        None when nothing stays: then nothing was written.

    Raises
    ------
    DamagedShard
        A shard's bytes are not what was committed; nothing was written.
    OSError
        Disk full and its kin; nothing was written.
    """
    keys, features = _gathered(listing, records, keeps)
    rejected = _rejections(records.values(), keys, keeps)
    if not len(keys) and not rejected:
        return None
    some = next(iter(records.values()))
    supersedes = sorted(set(records) | _still_there(listing, records))
    return commit(
        listing.shards,
        identity_of(keys, rejected, supersedes),
        listing.header.spec,
        keys,
        features,
        rejected=rejected,
        environment=some.environment,
        canary=some.canary,
        rounding=_worst([record.rounding for record in records.values() if record.rounding]),
        supersedes=supersedes,
    )


def identity_of(keys: np.ndarray, rejected: Sequence[RejectedContent], supersedes: Sequence[str]) -> str:
    """A shard's id that no task has: a rewritten shard of one task's rows must not pass for that task's own.

    Nor for another rewritten shard of the same rows: its name follows from those of the records that it supersedes, so
    no record supersedes itself, and none one that supersedes it, in whichever store they meet.

    Examples
    --------
    >>> first = identity_of(np.zeros((1, 32), np.uint8), [], [])
    >>> first != hashlib.sha256(bytes(32)).hexdigest()[:16]
    True
    >>> first != identity_of(np.zeros((1, 32), np.uint8), [], [f"{first}.json"])
    True
    """
    digest = hashlib.sha256(b"bottleneck rewritten shard 2\n%s\n" % " ".join(supersedes).encode("ascii"))
    digest.update(np.ascontiguousarray(keys).tobytes())
    for item in rejected:
        digest.update(bytes.fromhex(item.content))
    return digest.hexdigest()[:16]


def find_superseded(listing: Listing) -> tuple[dict[str, Record], list[str]]:
    """Superseded records, and parts that only such records can have named, that are needed no more.

    They are not where the record that replaces them is found damaged now: then they are the last sound rows.
    """
    records: dict[str, Record] = {}
    parts: list[str] = []
    for record in listing.standing.values():
        old = {name: listing.records[name] for name in record.supersedes if name in listing.superseded}
        ids = {name[:16] for name in record.supersedes}
        left = [part for part in listing.orphans if part[:16] in ids]
        if old or left:
            with contextlib.suppress(DamagedShard):
                if record.rows:
                    read_shard(listing.shards, record)
                records.update(old)
                parts += left
    return records, parts


def _gathered(listing: Listing, records: Mapping[str, Record], keeps: Keeps) -> tuple[np.ndarray, np.ndarray]:
    """Kept rows of all `records`, each content once, one shard in memory at a time beside the result."""
    spec = listing.header.spec
    most = sum(record.rows for record in records.values())
    keys = np.empty((most, 32), np.uint8)
    features = np.empty((most, *spec.shape), np.dtype(spec.recipe.dtype).newbyteorder("<"))
    count = 0
    for record in records.values():
        if record.rows:
            whole = read_shard(listing.shards, record)
            rows = np.flatnonzero(keeps(whole.keys))
            keys[count : count + len(rows)] = whole.keys[rows]
            features[count : count + len(rows)] = whole.features[rows]
            count += len(rows)
    once = first_rows(keys[:count], np.ones(count, bool))
    if len(once) < count:
        return keys[once], features[once]
    return keys[:count], features[:count]


def _rejections(records: Iterable[Record], keys: np.ndarray, keeps: Keeps) -> list[RejectedContent]:
    """Kept rejections by content, each once; lasting ones before those for circumstances; none that has a row now."""
    found: dict[str, RejectedContent] = {}
    for item in (item for record in records for item in record.rejected):
        there = found.get(item.content)
        if there is None or precedence(item) > precedence(there):
            found[item.content] = item
    if not found:
        return []
    rows = {key.tobytes().hex() for key in keys}
    kept = [item for content, item in sorted(found.items()) if content not in rows]
    contents = np.frombuffer(bytes.fromhex("".join(item.content for item in kept)), np.uint8).reshape(-1, 32)
    return [item for item, keep in zip(kept, keeps(contents), strict=True) if keep]


def _worst(found: Sequence[Rounding]) -> Rounding | None:
    if not found:
        return None
    return Rounding(relative=max(r.relative for r in found), cosine=min(r.cosine for r in found))


def _still_there(listing: Listing, records: Mapping[str, Record]) -> set[str]:
    """What `records` supersede and what was not removed yet: it must not count again once they are gone."""
    return {old for record in records.values() for old in record.supersedes} & set(listing.records)
