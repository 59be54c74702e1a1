"""Measure what reduced precision and storage types cost, on the rows themselves."""

from __future__ import annotations

import contextlib
import hashlib

import numpy as np

from bottleneck.contracts import Exact, Forward, Source
from bottleneck.errors import Rejected
from bottleneck.forward.cuts import forward_rows, specs_of
from bottleneck.schema import Drift, Rounding, Task

#: A mean can be taken of these; float32 takes seconds for more where it is slow.
_IMAGES = 16

#: Values of float64 held at once, beside the rows.
_AT_ONCE = 1 << 22

#: Of what is computed in float32, relative to a row's length.
_RESOLUTION = 1e-6


def probe_drift(forward: Forward, source: Source, task: Task) -> tuple[Drift | None, ...]:
    """Compare rows of the first images of `task` with float32 ones.

    `task` is done, so that none of its images is new to the decoder. Gives one for each cut, None where no image gives
    finite rows, and nothing where the forward pass cannot tell.
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
    finite = np.isfinite(full.reshape(len(full), -1)).all(axis=1)
    finite &= np.isfinite(reduced.reshape(len(full), -1)).all(axis=1)
    return measure_drift(full[finite], reduced[finite]) if finite.any() else None


def measure_rounding(full: np.ndarray, stored: np.ndarray) -> Rounding:
    """Measure how far `stored` rows are from `full` ones.

    Parameters
    ----------
    full : numpy.ndarray
        (n, *shape) float32, n >= 1, as computed.
    stored : numpy.ndarray
        (n, *shape), as stored; finite.

    Returns
    -------
    Rounding
        Rounded to six digits: evidence, and equal wherever the rows are.

    Examples
    --------
    >>> rows = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    >>> cost = measure_rounding(rows, rows.astype(np.float16))
    >>> 0 < cost.relative < 2 ** -11, 0.9999 < cost.cosine <= 1
    (True, True)
    """
    relative, cosines = _costs(full, stored)
    cosine = float(cosines.min(initial=1.0))
    return Rounding(relative=float(f"{relative:.6g}"), cosine=max(-1.0, float(f"{cosine:.8g}")))


def measure_drift(full: np.ndarray, reduced: np.ndarray) -> Drift:
    """Measure how far rows of reduced precision are from float32.

    Parameters
    ----------
    full, reduced : numpy.ndarray
        (n, *shape) float32, n >= 1.

    Examples
    --------
    >>> rows = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    >>> measure_drift(rows, rows).mean_cosine
    1.0
    """
    relative, cosines = _costs(full, reduced)
    mean = float(cosines.mean()) if len(cosines) else 1.0
    smallest, mean = (max(-1.0, float(f"{value:.8g}")) for value in (cosines.min(initial=1.0), mean))
    return Drift(
        images=len(full), relative=float(f"{relative:.6g}"), cosine=smallest, mean_cosine=min(1.0, mean)
    )


def _costs(full: np.ndarray, stored: np.ndarray) -> tuple[float, np.ndarray]:
    """Measure the largest relative error, and each row's centred cosine.

    A row without a direction of its own has no cosine.
    """
    full, stored = full.reshape(len(full), -1), stored.reshape(len(stored), -1)
    step = max(1, _AT_ONCE // max(1, full.shape[1]))
    parts = [slice(start, start + step) for start in range(0, len(full), step)]
    mean = np.sum([full[part].sum(axis=0, dtype=np.float64) for part in parts], axis=0) / len(full)
    relative, cosines = 0.0, [np.empty(0)]
    for part in parts:
        x, y = full[part].astype(np.float64), stored[part].astype(np.float64)
        size = np.linalg.norm(x, axis=1)
        error = np.linalg.norm(y - x, axis=1)
        relative = max(relative, float((error[size > 0] / size[size > 0]).max(initial=0.0)))
        x, y = x - mean, y - mean
        own = np.linalg.norm(x, axis=1)
        lengths = own * np.linalg.norm(y, axis=1)
        # A row that is the mean, as far as float32 can tell, has no direction of its own.
        directed = (own > _RESOLUTION * size) & (lengths > 0)
        cosines.append((x * y).sum(axis=1)[directed] / lengths[directed])
    return relative, np.concatenate(cosines)


def worst_rounding(roundings: list[Rounding]) -> Rounding | None:
    """Find the largest error and the smallest cosine; None of none."""
    if not roundings:
        return None
    return Rounding(relative=max(r.relative for r in roundings), cosine=min(r.cosine for r in roundings))
