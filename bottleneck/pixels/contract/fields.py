"""Read numbers, chunks and EXIF orientation (pixel contract)."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

# Real files have a handful of segments before the EXIF block and a few thousand chunks at most. The limits keep a
# crafted file of 4-byte segments from spending minutes in the graph; past them the search ends empty-handed.
_SEGMENTS = 512
_CHUNKS = 16384
_ZEROS = 64

Tensor = Any
Block = tuple[Tensor, Tensor]


def octets_of(contents: Tensor) -> tuple[Tensor, Tensor]:
    """Return bytes (n,) uint8 before zeros, and their count () int32.

    Examples
    --------
    >>> raw, size = octets_of(tf.constant(b"ab"))
    >>> int(raw[1]), int(raw[2]), int(size)
    (98, 0, 2)
    """
    # Zeros at the end let headers be read at any position without a test of the length before each read.
    raw = tf.io.decode_raw(tf.strings.join([contents, b"\0" * _ZEROS]), tf.uint8)
    return raw, tf.strings.length(contents)


def number(raw: Tensor, at: Tensor, length: int, *, little: bool = True) -> Tensor:
    """Read an unsigned number () int64 of `length` bytes.

    Examples
    --------
    >>> raw = tf.constant([7, 1, 2], tf.uint8)
    >>> int(number(raw, 1, 2)), int(number(raw, 1, 2, little=False))
    (513, 258)
    """
    weights = [256**i for i in range(length)]
    octets = tf.cast(tf.slice(raw, [at], [length]), tf.int64)
    return tf.reduce_sum(octets * tf.constant(weights if little else weights[::-1], tf.int64))


def jpeg_exif(raw: Tensor, size: Tensor) -> Block:
    """Find the EXIF segment: start (-1 for none) and length, () int32.

    Parameters
    ----------
    raw : tf.Tensor
        (n,) uint8: the JPEG file, and at least ten zeros.
    size : tf.Tensor
        () int32: its bytes without the zeros.
    """

    def at_exif(at: Tensor) -> Tensor:
        head = tf.gather(tf.slice(raw, [at], [10]), [0, 1, 4, 5, 6, 7, 8, 9])
        return tf.reduce_all(tf.equal(head, tf.constant([0xFF, 0xE1, *b"Exif\0\0"], tf.uint8)))

    def onward(at: Tensor, left: Tensor) -> Tensor:
        head = tf.slice(raw, [at], [2])
        ends = tf.equal(head[1], 0xDA) | tf.equal(head[1], 0xD9) | (head[0] < 0xFF) | (left < 1)
        return ~(ends | at_exif(at)) & (at < size)

    def step(at: Tensor, left: Tensor) -> Block:
        head = tf.cast(tf.slice(raw, [at + 1], [3]), tf.int32)
        length = head[1] * 256 + head[2]
        # 0xFF before a marker is filling; a length counts itself, so one below 2 is nonsense and ends the search.
        ahead = tf.where(tf.equal(head[0], 0xFF), 1, tf.where(length < 2, size, 2 + length))
        return tf.minimum(at + ahead, size), left - 1

    at, _ = tf.while_loop(onward, step, (tf.constant(2), tf.constant(_SEGMENTS)), parallel_iterations=1)
    length = tf.cast(number(raw, at + 2, 2, little=False), tf.int32)
    return tf.where(at_exif(at), at + 4, -1), length - 2


def chunks(
    raw: Tensor, size: Tensor, first: int, names: tuple[bytes, ...], *, png: bool
) -> tuple[Block, ...]:
    """Find the first chunk of each name: start (-1: none) and length.

    Parameters
    ----------
    raw : tf.Tensor
        (n,) uint8: the file, and at least eight zeros.
    size : tf.Tensor
        () int32: its bytes without the zeros.
    first : int
        Where its first chunk begins.
    names : tuple of bytes
        Of four bytes each.
    png : bool
        Whether chunks are PNG's; else RIFF's.
    """
    sought = tf.constant([list(name) for name in names], tf.uint8)

    def step(at: Tensor, left: Tensor, starts: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        name = tf.slice(raw, [at + 4 if png else at], [4])
        length = number(raw, at if png else at + 4, 4, little=not png)
        here = tf.reduce_all(tf.equal(sought, name), axis=1) & (starts < 0)
        starts = tf.where(here, at + 8, starts)
        lengths = tf.where(here, tf.cast(tf.minimum(length, 2**31 - 1), tf.int32), lengths)
        # PNG has a checksum behind each chunk, RIFF pads to an even length.
        ahead = tf.cast(at, tf.int64) + length + (12 if png else 8 + length % 2)
        return tf.cast(tf.minimum(ahead, tf.cast(size, tf.int64)), tf.int32), left - 1, starts, lengths

    none = tf.fill([len(names)], -1)
    _, _, starts, lengths = tf.while_loop(
        lambda at, left, *_: (at < size) & (left > 0),
        step,
        (tf.constant(first), tf.constant(_CHUNKS), none, none),
        parallel_iterations=1,
    )
    return tuple((starts[i], lengths[i]) for i in range(len(names)))


def orientation_of(raw: Tensor, size: Tensor, block: Block) -> Tensor:
    """Read the orientation 1..8 () int32; 1 for none.

    The TIFF block may follow ``Exif`` and two zeros.

    Parameters
    ----------
    raw : tf.Tensor
        (n,) uint8: the file, and zeros.
    size : tf.Tensor
        () int32: its bytes without the zeros.
    block : pair of tf.Tensor
        Start and length of the block, () int32; start -1 where there is none.

    Examples
    --------
    >>> tiff = b"II*\\0\\x08\\0\\0\\0\\x01\\0\\x12\\x01\\x03\\0\\x01\\0\\0\\0\\x06\\0\\0\\0"
    >>> raw = tf.constant(list(tiff + bytes(64)), tf.uint8)
    >>> int(orientation_of(raw, tf.constant(len(tiff)), (tf.constant(0), tf.constant(len(tiff)))))
    6
    """
    start, length = block

    def read() -> Tensor:
        prefix = tf.reduce_all(
            tf.equal(tf.slice(raw, [start], [6]), tf.constant(list(b"Exif\0\0"), tf.uint8))
        )
        base = tf.where(prefix, start + 6, start)
        # The block must not reach past its segment, nor the segment past the file.
        end = start + tf.minimum(length, size - start)
        order = tf.slice(raw, [base], [4])
        little = tf.reduce_all(tf.equal(order, tf.constant(list(b"II*\0"), tf.uint8)))
        big = tf.reduce_all(tf.equal(order, tf.constant(list(b"MM\0*"), tf.uint8)))

        def numbers(octets: Tensor) -> Tensor:
            octets = tf.cast(octets, tf.int64)
            rising = [256**i for i in range(octets.shape[-1])]
            weights = tf.where(little, tf.constant(rising, tf.int64), tf.constant(rising[::-1], tf.int64))
            return tf.reduce_sum(octets * weights, axis=-1)

        space = tf.cast(end - base, tf.int64)
        directory = numbers(tf.slice(raw, [base + 4], [4]))
        known = (little | big) & (directory >= 8) & (directory + 2 <= space)
        directory = base + tf.cast(tf.where(known, directory, 0), tf.int32)
        count = tf.cast(numbers(tf.slice(raw, [directory], [2])), tf.int32)
        count = tf.where(known, tf.minimum(count, (end - directory - 2) // 12), 0)
        entries = tf.reshape(raw[directory + 2 : directory + 2 + 12 * count], [-1, 12])
        # Tag 0x0112, type 3 (short), one value, kept in the first two bytes of the last four.
        wanted = tf.equal(numbers(entries[:, :2]), 0x0112) & tf.equal(numbers(entries[:, 2:4]), 3)
        wanted &= tf.equal(numbers(entries[:, 4:8]), 1)
        value = tf.reduce_sum(tf.boolean_mask(numbers(entries[:, 8:10]), wanted)[:1])
        return tf.cast(tf.where((value >= 1) & (value <= 8), value, 1), tf.int32)

    return tf.cond(start < 0, lambda: tf.constant(1), read)
