"""Find the row of a content by eight of its bytes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


def prefixes(keys: np.ndarray) -> np.ndarray:
    """Take eight bytes of each key as a number, (n,) uint64.

    Six are of the content; by the last two views differ.
    """
    return np.concatenate((keys[:, :6], keys[:, 30:]), axis=1).view(np.uint64).ravel()


def first_rows(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Find the first row of each distinct key among `wanted`, ascending.

    Parameters
    ----------
    keys : numpy.ndarray
        (n, 32) uint8.
    wanted : numpy.ndarray
        (n,) bool.

    Returns
    -------
    numpy.ndarray
        int64.
    """
    rows = np.flatnonzero(wanted)
    # By the first eight bytes, so that nothing of the size of all keys is copied or sorted; contents that share
    # them (copies, nearly always) are then compared by the whole key.
    prefix = np.ascontiguousarray(keys[:, :8]).view(np.uint64).ravel()
    if len(rows) < len(prefix):
        prefix = prefix[rows]
    order = np.argsort(prefix)
    prefix = prefix[order]
    same = prefix[1:] == prefix[:-1]
    del prefix
    shared = np.append(same, False) | np.append(False, same)
    kept = np.ones(len(rows), bool)
    if shared.any():
        doubtful = np.sort(order[shared])
        whole = np.ascontiguousarray(keys[rows[doubtful]]).view("V32").ravel()
        # return_index gives the first of equal keys because the sort that unique uses for it is stable.
        _, first = np.unique(whole, return_index=True)
        kept[doubtful] = False
        kept[doubtful[first]] = True
    return rows[kept]


@dataclass(frozen=True, eq=False)
class Index:
    """Find rows by content, in 48 bytes a row.

    Attributes
    ----------
    keys : numpy.ndarray
        (rows, 32) uint8, in the order of the shards' rows; a content may be there more than once.
    prefix : numpy.ndarray
        (n,) uint64: eight bytes of each distinct content, ascending.
    numbers : numpy.ndarray
        (n,) the row of each of these; of several, the one in the first record.
    """

    keys: np.ndarray
    prefix: np.ndarray
    numbers: np.ndarray

    @classmethod
    def of(cls, keys: np.ndarray) -> Index:
        """Index rows with these contents."""
        prefix = prefixes(keys)
        order = np.argsort(prefix, kind="stable")
        prefix = prefix[order]
        numbers = order.astype(np.int32 if len(keys) < 1 << 31 else np.int64)
        del order
        repeated = np.flatnonzero(prefix[1:] == prefix[:-1])
        if len(repeated):
            dropped = _repeats(keys, numbers, prefix, np.unique(prefix[repeated]))
            prefix, numbers = np.delete(prefix, dropped), np.delete(numbers, dropped)
        return cls(keys, prefix, numbers)

    def __len__(self) -> int:
        return len(self.prefix)

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Find (n,) int64 places in `numbers`, -1 for unknown contents."""
        wanted = prefixes(keys)
        places = np.full(len(keys), -1, np.int64)
        place = np.searchsorted(self.prefix, wanted)
        pending = np.arange(len(keys))
        # One round suffices, unless two contents share these eight bytes.
        while len(pending):
            pending = pending[place[pending] < len(self.prefix)]
            pending = pending[self.prefix[place[pending]] == wanted[pending]]
            equal = (self.keys[self.numbers[place[pending]]] == keys[pending]).all(axis=1)
            places[pending[equal]] = place[pending[equal]]
            pending = pending[~equal]
            place[pending] += 1
        return places


def _repeats(keys: np.ndarray, numbers: np.ndarray, prefix: np.ndarray, shared: np.ndarray) -> np.ndarray:
    """Find places in `numbers` whose content stands earlier, by `shared` prefixes."""
    places = np.flatnonzero(np.isin(prefix, shared))
    contents = np.ascontiguousarray(keys[numbers[places]]).view("V32").ravel()
    # The sort that unique uses for return_index is stable: it names the first of equal ones.
    _, first = np.unique(contents, return_index=True)
    return np.delete(places, first)
