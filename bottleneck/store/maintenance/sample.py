"""Compare some stored rows with rows computed again from the images.

This is the one check that hashes cannot replace.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bottleneck.errors import DamagedShard
from bottleneck.schema import Record, StoreSpec
from bottleneck.store.canary import canary_tolerance
from bottleneck.store.listing import Listing
from bottleneck.store.maintenance.repair import Recomputed
from bottleneck.store.maintenance.rewrite import Keeps
from bottleneck.store.maintenance.shard_check import read_contents
from bottleneck.store.record import READ_FLAGS


@dataclass(frozen=True)
class Sample:
    """The result of computing some rows again.

    Attributes
    ----------
    rows : int
        Rows that were compared.
    exact : int
        Of these, with the numeric environment of their shard, so that every bit had to agree.
    differing : tuple of str
        Contents (hex) whose stored row is another.
    missing : mapping of str to str
        Contents that gave no row now, and why.
    largest : float
        Largest difference, as a share of the rows' spread.
    """

    rows: int
    exact: int
    differing: tuple[str, ...]
    missing: Mapping[str, str]
    largest: float


@dataclass(frozen=True, eq=False)
class StoredSample:
    """Stored rows that were drawn, and the environment of each one's shard."""

    keys: np.ndarray
    features: np.ndarray
    environments: tuple[Mapping[str, str], ...]


def draw_sample(listing: Listing, wanted: Keeps, count: int, seed: int | None = None) -> StoredSample:
    """Draw `count` stored rows at random among those of `wanted` keys.

    The rows are read as they lie: hashing them is `verify_store`'s part. Raises `DamagedShard`.
    """
    spec = listing.header.spec
    places: list[tuple[Record, int]] = []
    for record in listing.standing.values():
        rows = np.flatnonzero(wanted(read_contents(listing.shards, record)))
        places += [(record, int(row)) for row in rows]
    chosen = np.random.default_rng(seed).permutation(len(places))[:count]
    picked = [places[i] for i in np.sort(chosen)]
    keys = np.empty((len(picked), 32), np.uint8)
    features = np.empty((len(picked), *spec.shape), np.dtype(spec.recipe.dtype).newbyteorder("<"))
    for number, (record, row) in enumerate(picked):
        keys[number], features[number] = _row(listing, record, row)
    return StoredSample(keys, features, tuple(record.environment for record, _ in picked))


def compare_sample(drawn: StoredSample, again: Recomputed, spec: StoreSpec) -> Sample:
    """Compare drawn rows with those computed again.

    Where the environment is equal they must be equal bit for bit, else within rounding.

    Parameters
    ----------
    drawn : StoredSample
    again : Recomputed
        May lack some of them.
    spec : StoreSpec

    Returns
    -------
    Sample
    """
    rows = {key.tobytes(): row for key, row in zip(again.keys, again.features, strict=True)}
    stored = drawn.features.astype(np.float64)
    spread = float(np.sqrt(stored.reshape(len(stored), -1).var(axis=0).mean())) if len(stored) > 1 else 0.0
    differing: list[str] = []
    missing: dict[str, str] = {}
    largest, compared, exact = 0.0, 0, 0
    for key, row, environment in zip(drawn.keys, drawn.features, drawn.environments, strict=True):
        content = key.tobytes()
        if content not in rows:
            missing[content.hex()] = again.rejected.get(content, "the source does not give it any more")
            continue
        other = rows[content]
        difference = float(np.abs(row.astype(np.float64) - other.astype(np.float64)).max(initial=0.0))
        equal_places = dict(environment) == dict(again.environment)
        compared, exact = compared + 1, exact + equal_places
        scale = spread or float(np.abs(row.astype(np.float64)).max(initial=0.0)) or 1.0
        largest = max(largest, difference / scale)
        allowed = canary_tolerance(spec) * scale + _rounding(row, spec)
        same = row.tobytes() == other.tobytes() if equal_places else difference <= allowed
        if not same:
            differing.append(content.hex())
    return Sample(compared, exact, tuple(differing), missing, largest)


def _rounding(row: np.ndarray, spec: StoreSpec) -> float:
    """Bound the rounding of the storage type at the row's largest value."""
    if spec.recipe.dtype == "float32":
        return 0.0
    return float(np.abs(row.astype(np.float64)).max(initial=0.0)) * float(np.finfo(np.float16).eps)


def _row(listing: Listing, record: Record, row: int) -> tuple[np.ndarray, np.ndarray]:
    spec = listing.header.spec
    try:
        descriptor = os.open(listing.shards / record.shard, READ_FLAGS)
    except FileNotFoundError as error:
        raise DamagedShard(
            f"shard {record.id}: {record.shard} went while rows were drawn; run this again"
        ) from error
    try:
        key = os.pread(descriptor, 32, record.content_offset + 32 * row)
        data = os.pread(descriptor, spec.row_bytes, record.features_offset + spec.row_bytes * row)
    finally:
        os.close(descriptor)
    features = np.frombuffer(data, np.dtype(spec.recipe.dtype).newbyteorder("<"))
    return np.frombuffer(key, np.uint8), features.reshape(spec.shape)
