"""The entropy-coded data of a JPEG file to planes at an eighth: the inner loops of `jpeg_eighth`, compiled by Numba.

All in one file: Numba keeps what it compiled (beside this file, or in the user's cache) and looks at the file alone
when it asks whether that is still right.

State is passed about as what it is: `at`, where to read on; `bits`, the next ones, first one first; `held`, how many of
them count. All unsigned, for which Numba makes no test of the sign: 64 bits both with and without one give floats.
"""

from __future__ import annotations

import functools

import numpy as np
from numba import njit, uint64

#: Bits that are looked up at once: for one coefficient, and for all that are passed over together. Both tables of a
#: plane stay in a processor's first cache.
ONE, MANY = 10, 13
#: Bits that are passed over at once, at most: of the 64 that there are after they were filled up, enough are left for a
#: look at the next ones when twice as many are gone.
_MOST = 25
#: Coefficients that are never passed over: these bits hold no whole one, or none that the code knows.
_NOT_KNOWN = 1023
#: Where there is no code: more than any block's mean has beyond that of another.
_NO_DIFFERENCE = 1 << 20
#: What lets a block end: 64 beyond the coefficients before it.
END = 64
#: Zeros behind the data, more than a group of six blocks can take: no read needs a test of where the data end.
ZEROS = 2048
_U = np.uint64

# Without counts of who holds an array: nothing is allocated in here, and to count at each call, by operations that
# processors do one at a time, took longer than all the rest.
_compiled = functools.partial(njit, nogil=True, cache=True, _nrt=False)()
_inlined = functools.partial(njit, forceinline=True, _nrt=False)()

# Place in a block, by rows, of the coefficient k in zigzag order.
# fmt: off
_ZIGZAG = np.array([
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21,
    28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63,
])
# fmt: on


@_inlined
def _code(ones, tables, row, bits):
    """Length and symbol of the code that `bits` (64, the next one first) begin with; length 0 where there is none.

    `ones` is that row of `tables.ones`, found before the loops.
    """
    entry = np.int64(ones[bits >> _U(64 - ONE)])
    if entry:
        return entry >> 8, entry & 255
    for length in range(ONE + 1, 17):
        code = np.int64(bits >> _U(64 - length))
        if code < tables.limits[row, length]:
            return length, np.int64(tables.symbols[row, code + tables.offsets[row, length]])
    return 0, 0


@_compiled
def fill_plane(tables, plane):
    """Fill `tables.many` of a plane from the rest of them."""
    for bits in range(1 << MANY):
        used = passed = end = 0
        while used < MANY and not end:
            length, symbol = _code(
                tables.ones[3 + plane], tables, 3 + plane, uint64(bits) << _U(64 - MANY + used)
            )
            run, size = symbol >> 4, symbol & 15
            if (
                length == 0
                or used + length > MANY
                or used + length + size > _MOST
                or (size == 0 and 0 < run < 15)
            ):
                break
            # The digits of the last coefficient may be beyond the bits: only their number counts.
            used += length + size
            end = symbol == 0
            passed += 0 if end else run + 1
        known = (passed or end) and passed < 64
        tables.many[plane, bits] = (used | (passed + END * end) << 6) if known else _NOT_KNOWN << 6


@_compiled
def _unstuffed(raw, at, data):
    """Copy `raw` from `at` up to the next marker to `data`, without the zero that follows each 0xFF.

    Returns how many bytes there are, with `ZEROS` behind them, and where the marker is; the file's end where none is.
    """
    at, end, count = _U(at), _U(raw.size), _U(0)
    while True:
        # Sixteen at once, whatever they are; then as many of them count as stand before an 0xFF, and that one.
        while at + _U(16) <= end:
            stuffed = False
            for i in range(16):
                octet = raw[at + _U(i)]
                data[count + _U(i)] = octet
                stuffed |= octet == 255
            if stuffed:
                break
            at += _U(16)
            count += _U(16)
        while at < end and raw[at] != 255:
            data[count] = raw[at]
            at += _U(1)
            count += _U(1)
        if at + _U(1) >= end or raw[at + _U(1)] != 0:
            data[count : count + _U(ZEROS)] = 0
            return np.int64(count), np.int64(min(at, end))
        data[count] = 255
        at += _U(2)
        count += _U(1)


@_inlined
def _filled(data, at, bits, held):
    """At least 56 of the next bits: where to read on, the bits, and how many of them are there.

    Without a branch: what is beyond `held` is there too, and is read once more. After "Reading bits in far too many
    ways", F. Giesen, 2018, variant 4.
    """
    word = (
        (uint64(data[at]) << _U(56))
        | (uint64(data[at + _U(1)]) << _U(48))
        | (uint64(data[at + _U(2)]) << _U(40))
        | (uint64(data[at + _U(3)]) << _U(32))
        | (uint64(data[at + _U(4)]) << _U(24))
        | (uint64(data[at + _U(5)]) << _U(16))
        | (uint64(data[at + _U(6)]) << _U(8))
        | uint64(data[at + _U(7)])
    )
    return at + ((_U(63) - held) >> _U(3)), bits | (word >> held), held | _U(56)


@_inlined
def _signed(bits, size):
    """The number of `size` digits that `bits` begin with, as JPEG writes it: a first 0 makes it negative."""
    digits = np.int64((bits >> _U(1)) >> _U(63 - size))
    return digits if digits >= (1 << size) >> 1 else digits + 1 - (1 << size)


@_inlined
def _passed(many, ones, tables, plane, data, at, bits, held):
    """Pass over the coefficients 1 to 63 of a block. The last of the results is False where they are none."""
    k = 1
    while True:
        # Looked up before the bits are filled up, so that the one does not wait for the other; and filled up for two.
        entry = np.int64(many[bits >> _U(64 - MANY)])
        at, bits, held = _filled(data, at, bits, held)
        ahead = k + (entry >> 6)
        if ahead < 64:
            bits, held, k = bits << _U(entry & 63), held - _U(entry & 63), ahead
            entry = np.int64(many[bits >> _U(64 - MANY)])
            ahead = k + (entry >> 6)
            if ahead < 64:
                bits, held, k = bits << _U(entry & 63), held - _U(entry & 63), ahead
                continue
        # A whole block has no code for its end: where one is told of behind it, that is of the next block.
        if ahead < END + 64 and (ahead == 64 or entry >> 6 >= END):
            return at, bits << _U(entry & 63), held - _U(entry & 63), True
        at, bits, held = _filled(data, at, bits, held)
        length, symbol = _code(ones, tables, 3 + plane, bits)
        run, size = symbol >> 4, symbol & 15
        bits, held = bits << _U(length + size), held - _U(length + size)
        k += run + 1
        if length == 0 or (size == 0 and 0 < run < 15) or (k > 64 and symbol):
            return at, bits, held, False
        if symbol == 0 or k == 64:
            return at, bits, held, True


@_inlined
def _read(ones, tables, plane, steps, block, data, at, bits, held):
    """Read the coefficients 1 to 63 into `block`; at last how many are not zero, -1 where they are no coefficients."""
    k, there = 1, 0
    while k < 64:
        at, bits, held = _filled(data, at, bits, held)
        length, symbol = _code(ones, tables, 3 + plane, bits)
        run, size = symbol >> 4, symbol & 15
        bits, held = bits << _U(length), held - _U(length + size)
        if length and symbol == 0:
            break
        k += run + 1
        value = 0 if size == 0 else _signed(bits, size) * steps[_U(min(k - 1, 63))]
        # libjpeg's loops for vectors count in 16 bits.
        if length == 0 or (size == 0 and run < 15) or k > 64 or abs(value) > 32767:
            return at, bits, held, -1
        bits <<= _U(size)
        if size:
            block[_U(_ZIGZAG[_U(k - 1)])] = value
            there += 1
    return at, bits, held, there


@_inlined
def _reduced(first, second, third, fourth, fifth):
    """Sum and difference of libjpeg's `jpeg_idct_2x2`, from coefficients 0, 1, 3, 5 and 7 of a row or column."""
    even = first << 15
    odd = 29692 * second - 10426 * third + 6967 * fourth - 5906 * fifth
    return even + odd, even - odd


@_inlined
def _quarters(block, half, there, plane, row, column):
    """Four samples of `plane` from a `block` of 64 coefficients, which is zeros then: libjpeg's `jpeg_idct_2x2`.

    False where a number on the way needs more than the 16 bits that libjpeg's loops for vectors have, or a sample is
    so far out that libjpeg's would wrap.
    """
    if there == 0:
        plane[row : row + 2, column : column + 2] = _sample((block[0] + 4) >> 3)
        return True
    sound = True
    for i in (0, 1, 3, 5, 7):
        upper, lower = _reduced(block[i], block[8 + i], block[24 + i], block[40 + i], block[56 + i])
        half[0, i], half[1, i] = (upper + (1 << 12)) >> 13, (lower + (1 << 12)) >> 13
        sound &= max(abs(half[0, i]), abs(half[1, i])) < 32768
    for i in range(2):
        left, right = _reduced(half[i, 0], half[i, 1], half[i, 3], half[i, 5], half[i, 7])
        left, right = (left + (1 << 19)) >> 20, (right + (1 << 19)) >> 20
        sound &= min(left, right) >= -512 and max(left, right) < 512
        plane[row + i, column], plane[row + i, column + 1] = _sample(left), _sample(right)
    block[:] = 0
    return sound


@_inlined
def _sample(value):
    """Eight bits from a sample around zero."""
    return np.uint8(min(max(value + 128, 0), 255))


@_compiled
def read_scan(raw, layout, tables, steps, octets, before, block, half, luma, chroma):
    """Fill `luma` and `chroma` from the data of a file.

    Parameters
    ----------
    raw : numpy.ndarray
        (n,) uint8: the whole file.
    layout : tuple of int
        Where its data begin, groups of blocks between two restart markers (0: there are none), and luma blocks of a
        group across and down.
    tables : jpeg_eighth.Tables
    steps : numpy.ndarray
        (3, 64) int64: of the quantisation, in zigzag order.
    octets, before, block, half : numpy.ndarray
        Room to work in: (n - start + ZEROS,) uint8, and zeros (3,), (64,), (2, 8) int64.
    luma : numpy.ndarray
        (rows, columns) uint8, of whole groups.
    chroma : numpy.ndarray
        (2, rows, columns) uint8: a pixel a block, or 2 x 2 where luma has two blocks down.

    Returns
    -------
    bool
        False where the data are not whole and sound; the planes hold anything then.
    """
    start, restart, across, down = layout
    count, marker = _unstuffed(raw, start, octets)
    at, bits, held = _U(0), _U(0), _U(0)
    left, restarts = restart, 0
    light, ones, many = tables.ones[0], tables.ones[3], tables.many[0]
    step = steps[0, 0]
    width = luma.shape[1]
    samples = luma.reshape(-1)
    mean_before = 0
    for row in range(luma.shape[0] // down):
        for column in range(width // across):
            if restart and not left:
                if not _ends(at, held, count, raw, marker, 0xD0 + restarts % 8):
                    return False
                count, marker = _unstuffed(raw, marker + 2, octets)
                at, bits, held = _U(0), _U(0), _U(0)
                left, restarts = restart, restarts + 1
                mean_before = 0
                before[:] = 0
            left -= 1
            # Eight bytes are read ahead; and all blocks of a group fit into the zeros behind the data.
            if np.int64(at) > count + 8:
                return False
            place = _U(row * down * width + column * across)
            for part in range(across * down):
                at, bits, held, difference = _difference(light, tables, 0, octets, at, bits, held)
                mean_before += difference
                mean = mean_before * step
                at, bits, held, sound = _passed(many, ones, tables, 0, octets, at, bits, held)
                if not -4096 <= mean + 4 < 4096 or not sound:
                    return False
                samples[place + _U((part >> 1) * width + (part & 1))] = _sample((mean + 4) >> 3)
            for plane in (1, 2):
                at, bits, held, difference = _difference(
                    tables.ones[plane], tables, plane, octets, at, bits, held
                )
                before[plane] += difference
                mean = before[plane] * steps[plane, 0]
                if not -4096 <= mean + 4 < 4096:
                    return False
                if down == 2:
                    at, bits, held, there = _read(
                        tables.ones[3 + plane], tables, plane, steps[plane], block, octets, at, bits, held
                    )
                    block[0] = mean
                    if there < 0 or not _quarters(block, half, there, chroma[plane - 1], 2 * row, 2 * column):
                        return False
                else:
                    at, bits, held, sound = _passed(
                        tables.many[plane], tables.ones[3 + plane], tables, plane, octets, at, bits, held
                    )
                    if not sound:
                        return False
                    chroma[plane - 1, row, column] = _sample((mean + 4) >> 3)
    return _ends(at, held, count, raw, marker, 0xD9)


@_inlined
def _difference(ones, tables, plane, data, at, bits, held):
    """What a block's first coefficient has more than that of the block before; `_NO_DIFFERENCE` where it is none."""
    at, bits, held = _filled(data, at, bits, held)
    length, size = _code(ones, tables, plane, bits)
    if length == 0 or size > 11:
        return at, bits, held, _NO_DIFFERENCE
    digits = _signed(bits << _U(length), size)
    return at, bits << _U(length + size), held - _U(length + size), digits


@_inlined
def _ends(at, held, count, raw, marker, wanted):
    """Whether nothing but filling is left of `count` bytes of data, and `wanted` is the marker behind them."""
    rest = 8 * count - (8 * np.int64(at) - np.int64(held))
    return 0 <= rest < 8 and marker + 1 < raw.size and raw[marker + 1] == wanted


@_compiled
def colour(luma, chroma, pixels):
    """RGB from luma and chroma of the same extent or more, in libjpeg's whole numbers."""
    for y in range(pixels.shape[0]):
        for x in range(pixels.shape[1]):
            light = np.int32(luma[y, x])
            blue, red = np.int32(chroma[0, y, x]) - np.int32(128), np.int32(chroma[1, y, x]) - np.int32(128)
            pixels[y, x, 0] = min(max(light + ((91881 * red + 32768) >> 16), 0), 255)
            pixels[y, x, 1] = min(max(light + ((-22554 * blue - 46802 * red + 32768) >> 16), 0), 255)
            pixels[y, x, 2] = min(max(light + ((116130 * blue + 32768) >> 16), 0), 255)
