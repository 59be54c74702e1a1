"""What storing rows in fewer bits costs, measured on the rows themselves."""

from __future__ import annotations

import numpy as np

from bottleneck.schema import Rounding

#: Values of float64 held at once, beside the rows.
_AT_ONCE = 1 << 22

#: Of what is computed in float32, relative to a row's length.
_RESOLUTION = 1e-6


def measure(full: np.ndarray, stored: np.ndarray) -> Rounding:
    """Largest relative error and smallest centred cosine of `stored` against `full`.

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
    >>> cost = measure(rows, rows.astype(np.float16))
    >>> 0 < cost.relative < 2 ** -11, 0.9999 < cost.cosine <= 1
    (True, True)
    """
    full, stored = full.reshape(len(full), -1), stored.reshape(len(stored), -1)
    step = max(1, _AT_ONCE // max(1, full.shape[1]))
    parts = [slice(start, start + step) for start in range(0, len(full), step)]
    mean = np.sum([full[part].sum(axis=0, dtype=np.float64) for part in parts], axis=0) / len(full)
    relative, cosine = 0.0, 1.0
    for part in parts:
        x, y = full[part].astype(np.float64), stored[part].astype(np.float64)
        size = np.linalg.norm(x, axis=1)
        error = np.linalg.norm(y - x, axis=1)
        relative = max(relative, float((error[size > 0] / size[size > 0]).max(initial=0.0)))
        x, y = x - mean, y - mean
        own = np.linalg.norm(x, axis=1)
        lengths = own * np.linalg.norm(y, axis=1)
        # A row that is the mean, as far as float32 can tell, has no direction of its own.
        there = (own > _RESOLUTION * size) & (lengths > 0)
        cosine = min(cosine, float(((x * y).sum(axis=1)[there] / lengths[there]).min(initial=1.0)))
    return Rounding(relative=float(f"{relative:.6g}"), cosine=max(-1.0, float(f"{cosine:.8g}")))


def worst(found: list[Rounding]) -> Rounding | None:
    """The largest error and the smallest cosine of several; None of none."""
    if not found:
        return None
    return Rounding(relative=max(r.relative for r in found), cosine=min(r.cosine for r in found))
