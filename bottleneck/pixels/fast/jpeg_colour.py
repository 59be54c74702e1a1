"""Convert the planes of a JPEG file to RGB with Numba."""

from __future__ import annotations

import functools

import numpy as np
from numba import njit

_compiled = functools.partial(njit, nogil=True, cache=True, _nrt=False)()


@_compiled
def fill_rgb(luma, chroma, pixels):
    """Fill `pixels` from luma and chroma, in libjpeg's whole numbers.

    Parameters
    ----------
    luma : numpy.ndarray
        (rows, columns) uint8.
    chroma : numpy.ndarray
        (2, rows, columns) uint8: blue and red.
    pixels : numpy.ndarray
        (rows, columns, 3) uint8; the planes may be larger.
    """
    for y in range(pixels.shape[0]):
        for x in range(pixels.shape[1]):
            light = np.int32(luma[y, x])
            blue, red = np.int32(chroma[0, y, x]) - np.int32(128), np.int32(chroma[1, y, x]) - np.int32(128)
            pixels[y, x, 0] = min(max(light + ((91881 * red + 32768) >> 16), 0), 255)
            pixels[y, x, 1] = min(max(light + ((-22554 * blue - 46802 * red + 32768) >> 16), 0), 255)
            pixels[y, x, 2] = min(max(light + ((116130 * blue + 32768) >> 16), 0), 255)
