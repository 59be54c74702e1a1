"""Rewrite rows of several shards as one that supersedes them."""

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

#: Tells which contents (n, 32) uint8 are kept: (n,) bool.
Keeps = Callable[[np.ndarray], np.ndarray]


def keep_all(keys: np.ndarray) -> np.ndarray:
    """Keep all rows."""
    return np.ones(len(keys), bool)


def rewrite(listing: Listing, records: Mapping[str, Record], keeps: Keeps = keep_all) -> Record | None:
    """Publish one shard with the kept rows and rejections of `records`.

    On return it is durable, and theirs are superseded. For the store's only housekeeper: what `records` name must not
    go meanwhile.

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
    """Derive an id for a rewritten shard that no task has.

    A rewritten shard must not pass for a task's own, nor for another rewritten shard of the same rows. Its name follows
    from the names of the records that it supersedes: so no record supersedes itself, nor one that supersedes it, in
    whichever store they meet.

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
    """Find superseded records, and parts of such, that nothing needs.

    They are needed while the record that replaces them is damaged: then they are the last sound rows.
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
    """Collect kept rejections without a row, each content once, lasting ones first."""
    verdicts: dict[str, RejectedContent] = {}
    for item in (item for record in records for item in record.rejected):
        known = verdicts.get(item.content)
        if known is None or precedence(item) > precedence(known):
            verdicts[item.content] = item
    if not verdicts:
        return []
    rows = {key.tobytes().hex() for key in keys}
    kept = [item for content, item in sorted(verdicts.items()) if content not in rows]
    contents = np.frombuffer(bytes.fromhex("".join(item.content for item in kept)), np.uint8).reshape(-1, 32)
    return [item for item, keep in zip(kept, keeps(contents), strict=True) if keep]


def _worst(roundings: Sequence[Rounding]) -> Rounding | None:
    if not roundings:
        return None
    return Rounding(relative=max(r.relative for r in roundings), cosine=min(r.cosine for r in roundings))


def _still_there(listing: Listing, records: Mapping[str, Record]) -> set[str]:
    """List superseded records that still exist: they must not count again."""
    return {old for record in records.values() for old in record.supersedes} & set(listing.records)
