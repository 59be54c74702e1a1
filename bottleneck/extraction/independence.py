"""Check that the rows of a base depend on their pictures alone.

Rows are computed once and kept, whatever stood beside an image in its batch. A base that takes a mean over the batch,
or draws numbers, has no such rows. One forward pass shows it: pictures whose rows are known stand in other places of a
batch, the rest of which is filled with other pictures than before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from bottleneck.contracts import Forward
from bottleneck.errors import UnsteadyBase
from bottleneck.extraction.worker.trial import timed_pass
from bottleneck.forward.cuts import specs_of
from bottleneck.pixels.probes import probes
from bottleneck.schema import StoreSpec
from bottleneck.store.canary import CANARY_IMAGES, canary_tolerance, spread_of, thin

#: Of what two machines may differ by. A place in the batch may change the last bits, and a deep network makes more of
#: them; a mean over the batch, or BatchNorm in training mode, is as far as pictures are from each other.
_FACTOR = 10.0

#: Of the largest value, what a spread is taken to be at least.
_LEAST = 0.01

#: Seconds; about what it takes to set a graph up.
_SET_UP = 1.0


class Canary:
    """What a forward pass gives for the canary pictures, computed once.

    Attributes
    ----------
    pace : float
        Seconds a forward pass.
    rows : tuple of numpy.ndarray
        (8, values) at each cut; empty before `compute`.
    """

    def __init__(self, forward: Forward, is_steady: bool) -> None:
        self._forward, self._is_steady = forward, is_steady
        self.pace = 0.0
        self.rows: tuple[np.ndarray, ...] = ()

    def compute(self, meanwhile: Callable[[], None]) -> tuple[np.ndarray, ...]:
        """Compute `rows` once; `meanwhile` awaits other set-up. Raises `UnsteadyBase`."""
        if not self.rows:
            rows = self._computed()
            meanwhile()
            if self.pace < _SET_UP:
                # The first pass of a quick base is nearly all set-up, and shares the processors with more of it.
                self._check(rows)
            self.rows = rows
        return self.rows

    def need_steady(self) -> None:
        """Check steadiness by one more pass, unless shown. Raises `UnsteadyBase`."""
        if not self._is_steady:
            self._check(self.rows)

    def _check(self, canaries: Sequence[np.ndarray]) -> None:
        self.pace, rows = timed_pass(self._forward, in_company(self._pictures(), self._forward.batch))
        check_steady(specs_of(self._forward), canaries, rows, self._computed)
        self._is_steady = True

    def _computed(self) -> tuple[np.ndarray, ...]:
        seen: list[tuple[np.ndarray, ...]] = []
        pictures, batch = self._pictures(), self._forward.batch
        for start in range(0, len(pictures), batch):
            part = pictures[start : start + batch]
            padded = np.zeros((batch, *part.shape[1:]), np.float32)
            padded[: len(part)] = part
            self.pace, rows = timed_pass(self._forward, padded)
            seen.append(tuple(np.array(row[: len(part)], np.float32) for row in rows))
        return tuple(thin(np.concatenate(parts)) for parts in zip(*seen, strict=True))

    def _pictures(self) -> np.ndarray:
        pixels = self._forward.spec.recipe.pixels
        return probes(CANARY_IMAGES, pixels.height, pixels.width)


def in_company(pictures: np.ndarray, batch: int) -> np.ndarray:
    """Make a batch that ends in some of `pictures`, in reverse order.

    Half of the batch at most, so that no set of pictures is just shuffled: that would hide what a mean over it does.

    Examples
    --------
    >>> pictures = np.arange(8, dtype=np.float32).reshape(8, 1, 1, 1)
    >>> in_company(pictures, 4).ravel().tolist(), in_company(pictures, 1).ravel().tolist()
    ([255.0, 254.0, 1.0, 0.0], [0.0])
    """
    known = _known(len(pictures), batch)
    pixels = np.float32(255) - pictures[np.arange(batch) % len(pictures)]
    pixels[batch - known :] = pictures[:known][::-1]
    return pixels


def _known(pictures: int, batch: int) -> int:
    return min(pictures, (batch + 1) // 2)


def check_steady(
    specs: Sequence[StoreSpec],
    canaries: Sequence[np.ndarray],
    rows: Sequence[np.ndarray],
    again: Callable[[], Sequence[np.ndarray]],
) -> None:
    """Compare rows in other company with `canaries`.

    Each sequence has one for each cut: `canaries` (8, values), as `thin` gives them, and `rows` (batch, *shape) of
    `in_company`. `again` gives `canaries` once more, to tell what is wrong where something is.

    Raises
    ------
    UnsteadyBase
        Rows depend on what else is in the batch, or change from call to call.
    """
    for cut, (spec, canary, full) in enumerate(zip(specs, canaries, rows, strict=True)):
        batch = len(full)
        known = _known(len(canary), batch)
        other = thin(np.asarray(full[batch - known :][::-1], np.float32))
        if _distance(canary, other) <= _allowed(spec):
            continue
        repeated = again()[cut]
        if not _distance(canary, repeated) <= _allowed(spec):
            raise UnsteadyBase(
                f"base {spec.base!r} (cut {spec.cut!r}) gives other rows for the same pictures at another call, by "
                f"{_distance(canary, repeated):.2g} of their spread: something in it draws random numbers, or counts "
                "calls. Rows that are kept must be the only ones: take the randomness out of its call"
            )
        raise UnsteadyBase(
            f"base {spec.base!r} (cut {spec.cut!r}) gives other rows for a picture in other company, by "
            f"{_distance(canary, other):.2g} of their spread: something in it reaches over the batch (a mean over axis "
            "0, BatchNorm in training mode). Rows that are kept must be the picture's alone: take it out, or use fixed "
            "numbers instead"
        )


def _allowed(spec: StoreSpec) -> float:
    return min(_FACTOR * canary_tolerance(spec), 0.5)


def _distance(canary: np.ndarray, rows: np.ndarray) -> float:
    """Measure the largest difference, relative to the spread between pictures.

    What is not finite in both is equal.
    """
    known = canary[: len(rows)]
    with np.errstate(invalid="ignore"):
        apart = np.abs(known - rows)
    equal = (known == rows) | (np.isnan(known) & np.isnan(rows))
    # Rows that hardly differ between pictures are held to a share of their values, or rounding would be all there is.
    scale = spread_of(canary) + _LEAST * float(np.abs(canary[np.isfinite(canary)]).max(initial=0.0))
    return float(np.where(equal, 0.0, apart).max(initial=0.0)) / (scale or 1.0)
