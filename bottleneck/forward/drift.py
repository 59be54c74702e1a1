"""What reduced precision costs on the user's own images: a few of them, computed both ways."""

from __future__ import annotations

import contextlib
import hashlib

import numpy as np

from bottleneck.contracts import Exact, Forward, Source
from bottleneck.errors import Rejected
from bottleneck.forward.cuts import forward_rows, specs_of
from bottleneck.forward.rounding import measure_drift
from bottleneck.schema import Drift, Task

#: A mean can be taken of these; float32 takes seconds for more where it is slow.
_IMAGES = 16


def probe_drift(forward: Forward, source: Source, task: Task) -> tuple[Drift | None, ...]:
    """Rows of the first images of `task` against float32 ones, at each cut.

    Parameters
    ----------
    forward : Forward
        Of reduced precision.
    source : Source
    task : Task
        Done, so that none of its images is new to the decoder.

    Returns
    -------
    tuple of Drift or None
        None where no image gives finite rows; empty where the forward pass cannot tell.
    """
    if not isinstance(forward, Exact):
        return ()
    size = forward.spec.recipe.pixels
    pixels = np.zeros((forward.batch, size.height, size.width, 3), np.float32)
    wanted, count = min(_IMAGES, forward.batch), 0
    for path, key in zip(task.paths, task.keys, strict=True):
        if count == wanted:
            break
        with contextlib.suppress(OSError, Rejected):
            data = source.read(path)
            if hashlib.sha256(data).digest() == key.tobytes():
                pixels[count] = forward.decode(data)
                count += 1
    if not count:
        return tuple(None for _ in specs_of(forward))
    both = zip(forward.exact(pixels[:count]), forward_rows(forward, pixels), strict=True)
    return tuple(_finite_drift(full, reduced[:count]) for full, reduced in both)


def _finite_drift(full: np.ndarray, reduced: np.ndarray) -> Drift | None:
    there = np.isfinite(full.reshape(len(full), -1)).all(axis=1)
    there &= np.isfinite(reduced.reshape(len(full), -1)).all(axis=1)
    return measure_drift(full[there], reduced[there]) if there.any() else None
