"""Decode a large JPEG file at an eighth, with libjpeg's very pixels.

It costs less than half of what libjpeg takes. At that scale a pixel of luma is the mean of its block of 8 x 8, the
first of 64 coefficients. The other 63 are not needed, but the length of their codes is. libjpeg reads them one at a
time, which is most of the time to extract features of photographs of 12 megapixels. Here a table says how many whole
coefficients the next bits hold, and all of these are skipped at once. Chroma with half the samples is at a quarter,
four pixels a block: its coefficients are read, and go through libjpeg's reduced transform.

Only the usual kind of file is read here (`jpeg_header`). For anything odd the answer is None, and libjpeg decides.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from bottleneck.pixels.fast import jpeg_loops
from bottleneck.pixels.fast.jpeg_colour import fill_rgb
from bottleneck.pixels.fast.jpeg_header import Code, scan_of
from bottleneck.pixels.fast.jpeg_loops import MANY, ONE, ZEROS


class Tables(NamedTuple):
    """Huffman codes for the loops: a row per plane, DC before AC."""

    #: (6, 2 ** ONE) uint16: from the next bits to length, in the upper byte, and symbol; 0 for longer codes.
    ones: np.ndarray
    #: (6, 17) int64: the first number that is no code of that length; -1 where there is none.
    limits: np.ndarray
    #: (6, 17) int64: from a code of that length to the place of its symbol.
    offsets: np.ndarray
    #: (6, 256) uint8.
    symbols: np.ndarray
    #: (3, 2 ** MANY) uint16: from the next bits to how many of them are skipped, in the lower six bits, and how many
    #: coefficients that are, plus `END` where the block ends behind them. For the AC code of each plane.
    many: np.ndarray


def at_an_eighth(data: bytes) -> tuple[np.ndarray, int] | None:
    """Decode at an eighth as TensorFlow does with the accurate integer DCT.

    Parameters
    ----------
    data : bytes
        A whole file, of any content.

    Returns
    -------
    tuple, optional
        (rows, columns, 3) uint8, RGB, and where the file's data begin (its orientation stands before). None for a
        damaged file, or one that is no usual baseline JPEG.

    Examples
    --------
    >>> at_an_eighth(b"GIF89a") is None
    True
    """
    scan = scan_of(data)
    if scan is None:
        return None
    across, down = -(-scan.width // (8 * scan.across)), -(-scan.height // (8 * scan.down))
    finer = 2 if scan.down == 2 else 1
    luma = np.empty((down * scan.down, across * scan.across), np.uint8)
    chroma = np.empty((2, down * finer, across * finer), np.uint8)
    steps = np.array([list(one) for one in scan.quantisation], np.int64)
    layout = (scan.start, scan.restart, scan.across, scan.down)
    raw = np.frombuffer(data, np.uint8)
    octets = np.empty(raw.size - scan.start + ZEROS, np.uint8)
    zeros = (np.zeros(shape, np.int64) for shape in (3, 64, (2, 8)))
    if not jpeg_loops.read_scan(raw, layout, _tables(scan.dc, scan.ac), steps, octets, *zeros, luma, chroma):
        return None
    if luma.shape[1] > chroma.shape[2]:
        chroma = np.repeat(chroma, 2, axis=2)
    pixels = np.empty((-(-scan.height // 8), -(-scan.width // 8), 3), np.uint8)
    fill_rgb(luma, chroma, pixels)
    return pixels, scan.start


@functools.lru_cache(maxsize=64)
def _tables(dc: tuple[Code, ...], ac: tuple[Code, ...]) -> Tables:
    count = len(dc) + len(ac)
    ones, symbols = np.zeros((count, 1 << ONE), np.uint16), np.zeros((count, 256), np.uint8)
    limits, offsets = np.full((count, 17), -1, np.int64), np.zeros((count, 17), np.int64)
    for row, (counts, named) in enumerate((*dc, *ac)):
        symbols[row, : len(named)] = list(named)
        code = place = 0
        for length, codes in enumerate(counts, 1):
            offsets[row, length] = place - code
            for symbol in named[place : place + codes]:
                if length <= ONE:
                    free = ONE - length
                    ones[row, code << free : code + 1 << free] = length << 8 | symbol
                code += 1
            place += codes
            if codes:
                limits[row, length] = code
            code <<= 1
    tables = Tables(ones, limits, offsets, symbols, np.empty((len(ac), 1 << MANY), np.uint16))
    for plane in range(len(ac)):
        jpeg_loops.fill_plane(tables, plane)
    return tables
