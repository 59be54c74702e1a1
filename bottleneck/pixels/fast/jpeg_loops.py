"""Read the entropy-coded data of a JPEG file, in loops for Numba.

The loops of `jpeg_eighth` stand in one file: Numba keeps what it compiled (beside this file, or in the user's cache)
and looks at this file alone when it asks whether that is still right.

They pass their state on: `at`, where to read on; `bits`, the next ones, first one first; `valid`, how many of them
count. All are unsigned, so Numba makes no test of the sign: 64 bits with and without a sign together give floats.
"""

from __future__ import annotations

import functools

import numpy as np
from numba import njit, uint64

#: Bits per look-up: for one coefficient, and for all that are skipped at once. Both tables stay in the first cache.
ONE, MANY = 10, 13
#: Most bits to skip at once: of 64 bits, enough are left for a look at the next ones when twice as many are gone.
_MOST = 25
#: Coefficients that are never skipped: these bits hold no whole one, or none that the code knows.
_NOT_KNOWN = 1023
#: Where there is no code: more than the means of two blocks can differ by.
_NO_DIFFERENCE = 1 << 20
#: What lets a block end: 64 beyond the coefficients before it.
END = 64
#: Zeros behind the data, more than a group of six blocks can take: no read needs a test of where the data end.
ZEROS = 2048
_U = np.uint64

# Without reference counts: nothing is allocated in here, and atomic counting at each call took longer than the rest.
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
    """Return length and symbol of the next code; length 0 for none."""
    # `ones` is this row of `tables.ones`, looked up before the loops.
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
    """Fill `tables.many` of a plane from the other tables."""
    row = 3 + plane
    for bits in range(1 << MANY):
        used = passed = end = 0
        while used < MANY and not end:
            length, symbol = _code(tables.ones[row], tables, row, uint64(bits) << _U(64 - MANY + used))
            run, size = symbol >> 4, symbol & 15
            beyond = used + length > MANY or used + length + size > _MOST
            if length == 0 or beyond or (size == 0 and 0 < run < 15):
                break
            # The digits of the last coefficient may be beyond the bits: only their number counts.
            used += length + size
            end = symbol == 0
            passed += 0 if end else run + 1
        known = (passed or end) and passed < 64
        tables.many[plane, bits] = (used | (passed + END * end) << 6) if known else _NOT_KNOWN << 6


@_compiled
def _unstuffed(raw, at, data):
    """Copy `raw` up to the next marker, without stuffed zeros.

    Returns how many bytes were copied, before `ZEROS`, and the place of the marker, or of the file's end.
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
def _refilled(data, at, bits, valid):
    """Refill to 56 valid bits or more.

    Without a branch: bits beyond `valid` are present too, and are read once more. After "Reading bits in far too many
    ways", F. Giesen, 2018, variant 4.
    """
    # fmt: off
    word = (
        (uint64(data[at]) << _U(56)) | (uint64(data[at + _U(1)]) << _U(48)) | (uint64(data[at + _U(2)]) << _U(40))
        | (uint64(data[at + _U(3)]) << _U(32)) | (uint64(data[at + _U(4)]) << _U(24))
        | (uint64(data[at + _U(5)]) << _U(16)) | (uint64(data[at + _U(6)]) << _U(8)) | uint64(data[at + _U(7)])
    )
    # fmt: on
    return at + ((_U(63) - valid) >> _U(3)), bits | (word >> valid), valid | _U(56)


@_inlined
def _signed(bits, size):
    """Read a number of `size` digits; a first 0 means negative."""
    digits = np.int64((bits >> _U(1)) >> _U(63 - size))
    return digits if digits >= (1 << size) >> 1 else digits + 1 - (1 << size)


@_inlined
def _skip_block(many, ones, tables, plane, data, at, bits, valid):
    """Skip coefficients 1 to 63; return at last whether they were sound."""
    k = 1
    while True:
        # Looked up before the bits are filled up, so that the one does not wait for the other; and filled up for two.
        entry = np.int64(many[bits >> _U(64 - MANY)])
        at, bits, valid = _refilled(data, at, bits, valid)
        ahead = k + (entry >> 6)
        if ahead < 64:
            bits, valid, k = bits << _U(entry & 63), valid - _U(entry & 63), ahead
            entry = np.int64(many[bits >> _U(64 - MANY)])
            ahead = k + (entry >> 6)
            if ahead < 64:
                bits, valid, k = bits << _U(entry & 63), valid - _U(entry & 63), ahead
                continue
        # A whole block has no code for its end: one behind it belongs to the next block.
        if ahead < END + 64 and (ahead == 64 or entry >> 6 >= END):
            return at, bits << _U(entry & 63), valid - _U(entry & 63), True
        at, bits, valid = _refilled(data, at, bits, valid)
        length, symbol = _code(ones, tables, 3 + plane, bits)
        run, size = symbol >> 4, symbol & 15
        bits, valid = bits << _U(length + size), valid - _U(length + size)
        k += run + 1
        if length == 0 or (size == 0 and 0 < run < 15) or (k > 64 and symbol):
            return at, bits, valid, False
        if symbol == 0 or k == 64:
            return at, bits, valid, True


@_inlined
def _read_block(ones, tables, plane, steps, block, data, at, bits, valid):
    """Read coefficients 1 to 63; count those beside zero, -1 if unsound."""
    k, nonzero = 1, 0
    while k < 64:
        at, bits, valid = _refilled(data, at, bits, valid)
        length, symbol = _code(ones, tables, 3 + plane, bits)
        run, size = symbol >> 4, symbol & 15
        bits, valid = bits << _U(length), valid - _U(length + size)
        if length and symbol == 0:
            break
        k += run + 1
        value = 0 if size == 0 else _signed(bits, size) * steps[_U(min(k - 1, 63))]
        # libjpeg's loops for vectors count in 16 bits.
        if length == 0 or (size == 0 and run < 15) or k > 64 or abs(value) > 32767:
            return at, bits, valid, -1
        bits <<= _U(size)
        if size:
            block[_U(_ZIGZAG[_U(k - 1)])] = value
            nonzero += 1
    return at, bits, valid, nonzero


@_inlined
def _reduced(first, second, third, fourth, fifth):
    # Sum and difference of `jpeg_idct_2x2` of libjpeg, from coefficients 0, 1, 3, 5 and 7 of a row or column.
    even = first << 15
    odd = 29692 * second - 10426 * third + 6967 * fourth - 5906 * fifth
    return even + odd, even - odd


@_inlined
def _quarters(block, half, nonzero, plane, row, column):
    """Write four samples from 64 coefficients, as `jpeg_idct_2x2` does.

    The block is zeros then. False where a number needs more than the 16 bits of libjpeg's vector loops, or a sample is
    so far out that libjpeg's would wrap.
    """
    if nonzero == 0:
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
    return np.uint8(min(max(value + 128, 0), 255))


@_compiled
def read_scan(raw, layout, tables, steps, octets, before, block, half, luma, chroma):
    """Fill `luma` and `chroma` from the data of a file.

    Parameters
    ----------
    raw : numpy.ndarray
        (n,) uint8: the whole file.
    layout : tuple of int
        Where its data begin, groups of blocks between two restart markers (0 for none), and luma blocks of a group
        across and down.
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
    at, bits, valid = _U(0), _U(0), _U(0)
    left, restarts = restart, 0
    light, ones, many = tables.ones[0], tables.ones[3], tables.many[0]
    step, width, samples, mean_before = steps[0, 0], luma.shape[1], luma.reshape(-1), 0
    for row in range(luma.shape[0] // down):
        for column in range(width // across):
            if restart and not left:
                if not _ends(at, valid, count, raw, marker, 0xD0 + restarts % 8):
                    return False
                count, marker = _unstuffed(raw, marker + 2, octets)
                at, bits, valid = _U(0), _U(0), _U(0)
                left, restarts = restart, restarts + 1
                mean_before = 0
                before[:] = 0
            left -= 1
            # Eight bytes are read ahead; and all blocks of a group fit into the zeros behind the data.
            if np.int64(at) > count + 8:
                return False
            place = _U(row * down * width + column * across)
            for part in range(across * down):
                at, bits, valid, difference = _difference(light, tables, 0, octets, at, bits, valid)
                mean_before += difference
                mean = mean_before * step
                at, bits, valid, sound = _skip_block(many, ones, tables, 0, octets, at, bits, valid)
                if not -4096 <= mean + 4 < 4096 or not sound:
                    return False
                samples[place + _U((part >> 1) * width + (part & 1))] = _sample((mean + 4) >> 3)
            for plane in (1, 2):
                at, bits, valid, difference = _difference(
                    tables.ones[plane], tables, plane, octets, at, bits, valid
                )
                before[plane] += difference
                mean = before[plane] * steps[plane, 0]
                if not -4096 <= mean + 4 < 4096:
                    return False
                if down == 2:
                    at, bits, valid, nonzero = _read_block(
                        tables.ones[3 + plane], tables, plane, steps[plane], block, octets, at, bits, valid
                    )
                    block[0] = mean
                    target = chroma[plane - 1]
                    if nonzero < 0 or not _quarters(block, half, nonzero, target, 2 * row, 2 * column):
                        return False
                else:
                    at, bits, valid, sound = _skip_block(
                        tables.many[plane], tables.ones[3 + plane], tables, plane, octets, at, bits, valid
                    )
                    if not sound:
                        return False
                    chroma[plane - 1, row, column] = _sample((mean + 4) >> 3)
    return _ends(at, valid, count, raw, marker, 0xD9)


@_inlined
def _difference(ones, tables, plane, data, at, bits, valid):
    """Read how the mean of a block differs from the one before."""
    at, bits, valid = _refilled(data, at, bits, valid)
    length, size = _code(ones, tables, plane, bits)
    if length == 0 or size > 11:
        return at, bits, valid, _NO_DIFFERENCE
    digits = _signed(bits << _U(length), size)
    return at, bits << _U(length + size), valid - _U(length + size), digits


@_inlined
def _ends(at, valid, count, raw, marker, wanted):
    """Whether only filling is left before the marker `wanted`."""
    rest = 8 * count - (8 * np.int64(at) - np.int64(valid))
    return 0 <= rest < 8 and marker + 1 < raw.size and raw[marker + 1] == wanted
