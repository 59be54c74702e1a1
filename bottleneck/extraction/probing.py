"""What reduced precision costs on the user's own images: a few of them, computed both ways."""

from __future__ import annotations

import contextlib
import hashlib

import numpy as np

from bottleneck.contracts import Exact, Forward, Source
from bottleneck.errors import Rejected
from bottleneck.extraction.rounding import drift
from bottleneck.schema import Drift, Task

_IMAGES = 32


def probe_drift(forward: Forward, source: Source, task: Task) -> Drift | None:
    """Rows of the first images of `task` against float32 ones.

    Parameters
    ----------
    forward : Forward
        Of reduced precision.
    source : Source
    task : Task
        Done, so that none of its images is new to the decoder.

    Returns
    -------
    Drift or None
        None where the forward pass cannot tell, or no image gives finite rows.
    """
    if not isinstance(forward, Exact):
        return None
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
    reduced, full = (rows[:count] for rows in (forward.features(pixels), forward.exact(pixels)))
    finite = [np.isfinite(rows).reshape(count, -1).all(axis=1) for rows in (reduced, full)]
    there = finite[0] & finite[1]
    return drift(full[there], reduced[there]) if there.any() else None
