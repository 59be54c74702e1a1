"""Feed a fine-tuning: rows of a cached prefix, or decoded pixels."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bottleneck.store.batches import batches
from bottleneck.store.rows import Rows


class Feed(Protocol):
    """Give images in any order, each in one of its views."""

    @property
    def codes(self) -> np.ndarray:
        """(n,) int64."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what is given for an image."""

    def batches(
        self, order: np.ndarray, draws: np.ndarray, size: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield batches of `size` images; the last may be shorter.

        Parameters
        ----------
        order : numpy.ndarray
            (m,) numbers of images.
        draws : numpy.ndarray
            (n,) the view of each image; 0 is the image itself.
        size : int

        Yields
        ------
        rows : numpy.ndarray
            (size, *shape) float32.
        codes : numpy.ndarray
            (size,) int64.
        """


@dataclass(frozen=True, eq=False)
class StoredRows:
    """Rows of a prefix: (n * views, *shape).

    They lie on disk or in memory, the views of an image side by side.
    """

    rows: Rows | np.ndarray
    codes: np.ndarray
    views: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row."""
        return tuple(self.rows.shape[1:])

    def batches(
        self, order: np.ndarray, draws: np.ndarray, size: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """As `Feed.batches`; rows on disk are gathered thousands at once."""
        for rows, numbers in batches(self.rows, size, order * self.views + draws[order]):
            yield rows, self.codes[numbers // self.views]


@dataclass(frozen=True, eq=False)
class DecodedImages:
    """Images that are decoded on demand, one batch ahead.

    Attributes
    ----------
    image : callable
        From an image's number and a view's to (height, width, 3) float32 in 0..255; safe from several threads.
    """

    image: Callable[[int, int], np.ndarray]
    codes: np.ndarray
    shape: tuple[int, ...]

    def batches(
        self, order: np.ndarray, draws: np.ndarray, size: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """As `Feed.batches`."""
        parts = [order[start : start + size] for start in range(0, len(order), size)]
        # One more than there are processors: each waits for its file now and then.
        with ThreadPoolExecutor(1 + (os.cpu_count() or 1), thread_name_prefix="decode") as pool:

            def begun(part: np.ndarray) -> list[Future[np.ndarray]]:
                return [pool.submit(self.image, int(n), int(draws[n])) for n in part]

            ahead = begun(parts[0]) if parts else []
            for number, part in enumerate(parts):
                images = [future.result() for future in ahead]
                ahead = begun(parts[number + 1]) if number + 1 < len(parts) else []
                yield np.stack(images), self.codes[part]
