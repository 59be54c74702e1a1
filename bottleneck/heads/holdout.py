"""Hold out rows to watch a fit by."""

from __future__ import annotations

import hashlib

import numpy as np

from bottleneck.heads.dense_training import Data
from bottleneck.store.rows import Rows, picked

#: Bytes of rows that are hashed at a time.
_PIECE = 32 << 20


def hold_out(data: Data, part: float, seed: int) -> tuple[Data, Data | None]:
    """Hold out `part` of each class, which keeps one image.

    Equal rows stay on one side, whatever their labels: a copy that trains would be watched as if it were new.
    """
    random = np.random.default_rng([seed, 0])  # epoch 0: no epoch's order uses this stream
    codes = data.codes[:: data.views]
    copies = fingerprints(picked(data.rows, slice(None, None, data.views)))
    by_copy, sizes = np.argsort(copies, kind="stable"), np.bincount(copies)
    ends = np.cumsum(sizes)
    held, left = np.zeros(len(codes), bool), np.bincount(codes)
    for code in np.unique(codes):
        members = random.permutation(np.flatnonzero(codes == code))
        wanted = min(round(len(members) * part), len(members) - 1)
        there = int(held[members].sum())
        for copy in copies[members].tolist():
            if there >= wanted:
                break
            alike = by_copy[ends[copy] - sizes[copy] : ends[copy]]
            taken = np.bincount(codes[alike], minlength=len(left))
            # Held already, more than this class gives, or the last of another class.
            last = ((left - taken)[taken > 0] < 1).any()
            if held[alike[0]] or last or there + taken[code] > wanted:
                continue
            held[alike], left, there = True, left - taken, there + int(taken[code])
    if not held.any():
        return data, None
    kept, watched = np.repeat(~held, data.views), np.flatnonzero(held) * data.views
    return (
        Data(picked(data.rows, kept), data.codes[kept], data.views),
        Data(picked(data.rows, watched), data.codes[watched]),
    )


def fingerprints(rows: np.ndarray | Rows) -> np.ndarray:
    """A number (n,) for each row, equal for equal rows."""
    found = np.empty((len(rows), 16), np.uint8)
    step = max(1, _PIECE // max(1, rows.shape[1] * rows.dtype.itemsize))
    for start in range(0, len(rows), step):
        part = np.ascontiguousarray(rows[start : start + step])
        for number, row in enumerate(part, start):
            found[number] = np.frombuffer(hashlib.blake2b(row.tobytes(), digest_size=16).digest(), np.uint8)
    numbers: np.ndarray = np.unique(found.view("V16").ravel(), return_inverse=True)[1]
    return numbers
