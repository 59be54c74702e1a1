"""Read rows of many shards through memory maps, each block checked first."""

from __future__ import annotations

import itertools
import resource
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from bottleneck.store.shard_file import MAPS_NEED_DESCRIPTORS, ShardFile

#: The kernel bounds the maps of a process, 65,530 by default, and threads and memory are maps too.
_MOST_MAPS = 16_384


#: Rows in a row, on average, from which they are copied run by run.
_RUN = 16


#: The maps of this process, oldest first: one bound for all stores that are open.
_MAPS: weakref.WeakKeyDictionary[ShardFile, np.ndarray] = weakref.WeakKeyDictionary()


class Shards:
    """The rows of many shards, numbered through, shard after shard.

    Safe from several threads, and after a fork. A pickle contains the records alone: whoever reads it maps the same
    files again and checks them again.

    Parameters
    ----------
    files : sequence of ShardFile
        Of one shape and type.
    width : int
        Values of a row.
    dtype : numpy.dtype
    """

    def __init__(self, files: Sequence[ShardFile], width: int, dtype: np.dtype[Any]) -> None:
        self.files, self.width, self.dtype = tuple(files), width, dtype
        #: (shards + 1,): number of each shard's first row, and of all rows.
        self.starts = np.cumsum([0, *(file.record.rows for file in files)], dtype=np.int64)
        self._checked = [np.zeros(file.block_count, bool) for file in self.files]
        self._sound = np.zeros(len(self.files), bool)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __reduce__(self) -> tuple[Any, ...]:
        return Shards, (self.files, self.width, self.dtype)

    def gather(self, numbers: np.ndarray, out: np.ndarray) -> None:
        """Copy rows to `out` in the order asked for, each block checked.

        Parameters
        ----------
        numbers : numpy.ndarray
            (n,) row numbers.
        out : numpy.ndarray
            (n, width); of another type than the stored one, rows are converted.

        Raises
        ------
        DamagedShard
            Names the shard and its rows.
        ReadFailure
            The disk refused the read.
        """
        if not len(numbers):
            return
        breaks = np.flatnonzero(numbers[1:] != numbers[:-1] + 1) + 1
        if len(breaks) * _RUN <= len(numbers):
            for start, stop in itertools.pairwise([0, *breaks.tolist(), len(numbers)]):
                self._copy_run(int(numbers[start]), out[start:stop])
            return
        # One walk through the shards, rows ascending in each: what the disk and its read-ahead like best.
        places = np.argsort(numbers, kind="stable")
        ascending = numbers[places]
        edges = np.searchsorted(ascending, self.starts)
        scratch = np.empty((int(np.diff(edges).max()), self.width), self.dtype)
        for shard in np.flatnonzero(np.diff(edges)).tolist():
            start, stop = edges[shard], edges[shard + 1]
            rows = ascending[start:stop] - self.starts[shard]
            self._check(shard, rows)
            first, features = self._rows_between(shard, int(rows[0]), int(rows[-1]) + 1)
            out[places[start:stop]] = np.take(
                features, rows - first, axis=0, out=scratch[: len(rows)], mode="clip"
            )

    def check_all(self) -> None:
        """Hash every block not yet hashed in this process. Raises as `gather`."""
        for shard, file in enumerate(self.files):
            self._check(shard, np.arange(file.record.rows))

    def _check(self, shard: int, rows: np.ndarray) -> None:
        if self._sound[shard]:
            return
        checked = self._checked[shard]
        needed = np.zeros_like(checked)
        needed[rows // self.files[shard].record.block_rows] = True
        blocks = np.flatnonzero(needed & ~checked)
        if len(blocks):
            self.files[shard].check(blocks.tolist())
            checked[blocks] = True
        self._sound[shard] = checked.all()

    def _copy_run(self, number: int, out: np.ndarray) -> None:
        done = 0
        while done < len(out):
            shard = int(np.searchsorted(self.starts, number + done, side="right")) - 1
            first = number + done - int(self.starts[shard])
            stop = min(first + len(out) - done, self.files[shard].record.rows)
            self._check(shard, np.arange(first, stop))
            offset, features = self._rows_between(shard, first, stop)
            out[done : done + stop - first] = features[first - offset : stop - offset]
            done += stop - first

    def _rows_between(self, shard: int, first: int, stop: int) -> tuple[int, np.ndarray]:
        """Give rows that include `first` to `stop`, and their start."""
        features = self._map(shard)
        return (0, features) if features is not None else (first, self.files[shard].read(first, stop))

    def _map(self, shard: int) -> np.ndarray | None:
        file = self.files[shard]
        features = _MAPS.get(file)
        if features is None:
            features = file.map()
            if features is None:
                return None
            _MAPS[file] = features
            # Dropping a map that another thread copies from is safe: it lives as long as it is referenced.
            if (excess := len(_MAPS) - _most_maps()) > 0:
                for oldest in _MAPS.keyrefs()[:excess]:
                    if (other := oldest()) is not None:
                        _MAPS.pop(other, None)
        return features


def _most_maps() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if not MAPS_NEED_DESCRIPTORS or soft == resource.RLIM_INFINITY:
        return _MOST_MAPS
    return min(_MOST_MAPS, max(4, soft // 4))
