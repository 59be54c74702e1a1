"""Generate a fixed set of coloured probe pictures.

A swap of colour channels, a forgotten preprocessing or a BatchNorm in training mode must move their features, which
grey photographs would hide. They calibrate random weights, make the canary of a store and strengthen the parity
certificate.
"""

from __future__ import annotations

import numpy as np

#: Part of every digest and certificate that rests on these pictures: raise it when one pixel changes.
PROBES_VERSION = 1


def probes(count: int, height: int, width: int) -> np.ndarray:
    """Draw gradients, stripes, checks, discs and clouds in different colours.

    Picture k is the same whatever `count` is. Arithmetic in float64 on seeded draws, rounded to whole numbers, so
    that machines agree to the bit.

    Parameters
    ----------
    count, height, width : int

    Returns
    -------
    numpy.ndarray
        (count, height, width, 3) float32, whole numbers in 0..255.

    Examples
    --------
    >>> p = probes(3, 8, 12)
    >>> p.shape, p.dtype.name, bool((p == p.round()).all()), bool((probes(1, 8, 12)[0] == p[0]).all())
    ((3, 8, 12, 3), 'float32', True, True)
    """
    pictures = np.empty((count, height, width, 3), np.float32)
    y, x = np.meshgrid(
        (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij", sparse=True
    )
    shapes = (_gradient, _stripes, _checks, _discs, _clouds)
    for k in range(count):
        # PCG64 bit streams and `random()` are fixed by NumPy's compatibility policy; other draws are not.
        draw = np.random.Generator(np.random.PCG64(1_000_003 * PROBES_VERSION + k))
        field = shapes[k % len(shapes)](x, y, draw)
        low, high = draw.random(3) * 255, draw.random(3) * 255
        # Two colours that differ clearly between channels, else the picture is nearly grey and shows nothing.
        high[k % 3], low[k % 3] = 255, 0
        low[(k + 1) % 3] = 220
        noise = (draw.random((height, width, 3)) - 0.5) * 24
        picture = low + (high - low) * field[..., None] + noise
        pictures[k] = np.clip(np.rint(picture), 0, 255)
    return pictures


def _gradient(x: np.ndarray, y: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    a, b = draw.random(2)
    field = a * x + b * y
    return (field - field.min()) / (np.ptp(field) + 1e-9)


def _stripes(x: np.ndarray, y: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    a, b, phase = draw.random(3)
    # Triangle waves: sines differ in their last bits between maths libraries.
    t = ((3 + 9 * a) * x + (3 + 9 * b) * y + phase) % 1.0
    return np.abs(2 * t - 1)


def _checks(x: np.ndarray, y: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    a, b = 2 + np.floor(draw.random(2) * 8)
    return (np.floor(a * x) + np.floor(b * y)) % 2


def _discs(x: np.ndarray, y: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    field = np.zeros(np.broadcast_shapes(x.shape, y.shape))
    for _ in range(4):
        cx, cy, r = draw.random(3)
        inside = (x - cx) ** 2 + (y - cy) ** 2 < (0.08 + 0.25 * r) ** 2
        field = np.where(inside, 1 - field, field)
    return field


def _clouds(x: np.ndarray, y: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    field = np.zeros(np.broadcast_shapes(x.shape, y.shape))
    for octave in (2, 4, 8, 16):
        grid = draw.random((octave + 1, octave + 1))
        gx, gy = x * octave, y * octave
        ix, iy = np.floor(gx).astype(int), np.floor(gy).astype(int)
        fx, fy = gx - ix, gy - iy
        top = grid[iy, ix] * (1 - fx) + grid[iy, ix + 1] * fx
        bottom = grid[iy + 1, ix] * (1 - fx) + grid[iy + 1, ix + 1] * fx
        field = field + (top * (1 - fy) + bottom * fy) / octave
    return (field - field.min()) / (np.ptp(field) + 1e-9)
