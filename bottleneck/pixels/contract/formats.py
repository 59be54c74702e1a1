"""Decode each format to its picture, not turned yet (pixel contract)."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from bottleneck.pixels.contract.fields import Block, Tensor, number


def demand(condition: Tensor, message: str, size: Tensor) -> Tensor:
    """Refuse the file with `message` and `size` unless `condition` holds."""
    return tf.debugging.Assert(condition, [f"{message} (bytes:", size, ")"])


def _three(image: Tensor) -> Tensor:
    return tf.ensure_shape(image, [None, None, 3])


def jpeg_image(contents: Tensor, orientation: Tensor, height: int, width: int, resize: str) -> Tensor:
    """Decode a JPEG at the smallest scale that leaves the target.

    Returns (rows, columns, 3) uint8.

    Parameters
    ----------
    contents : tf.Tensor
        () string: the whole file.
    orientation : tf.Tensor
        () int32, 1 to 8: which of the file's axes becomes which of the target's.
    height, width : int
        The target.
    resize : {"stretch", "crop", "pad"}

    Examples
    --------
    >>> file = tf.io.encode_jpeg(tf.zeros([400, 600, 3], tf.uint8))
    >>> jpeg_image(file, tf.constant(1), 90, 90, "stretch").shape
    TensorShape([100, 150, 3])
    """
    extent = tf.io.extract_jpeg_shape(contents)
    turned = tf.greater_equal(orientation, 5)
    tall = tf.where(turned, extent[1], extent[0]) // height
    wide = tf.where(turned, extent[0], extent[1]) // width
    # With `pad` one axis is filled and the other is not: the filled one says how much may be dropped.
    room = tf.maximum(tall, wide) if resize == "pad" else tf.minimum(tall, wide)
    step = tf.reduce_sum(tf.cast(tf.stack([room >= 2, room >= 4, room >= 8]), tf.int32))

    def at(ratio: int) -> Callable[[], Tensor]:
        # The ratio is an attribute of the operation and cannot be a tensor: hence four branches.
        return lambda: tf.io.decode_jpeg(contents, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE")

    return _three(tf.switch_case(step, [at(1), at(2), at(4), at(8)]))


def png_transparency_is_heeded(raw: Tensor, transparency: Block, palette: Block, data: Block) -> Tensor:
    """Whether libpng heeds the transparency chunk, () bool; True without one.

    True also for one without meaning. libpng ignores one that is out of place or of a wrong length, and then TensorFlow
    fills the alpha of a picture of few bits with a wrong value. It also ignores one with a wrong checksum; a graph
    is no place to find that.
    """
    (at, length), colour = transparency, raw[25]
    indexed = tf.equal(colour, 3)
    right = tf.where(
        indexed,
        (palette[0] >= 0) & (palette[0] < at) & (length >= 1) & (length <= palette[1] // 3),
        tf.equal(length, tf.where(tf.equal(colour, 2), 6, 2)),
    )
    meaningless = tf.equal(colour, 4) | tf.equal(colour, 6)
    return (at < 0) | meaningless | (right & ((data[0] < 0) | (at < data[0])))


def png_image(contents: Tensor) -> Tensor:
    """Decode an opaque 8-bit PNG: (rows, columns, 3) uint8."""
    return _three(tf.io.decode_png(contents, channels=3))


def deep_png_image(contents: Tensor) -> Tensor:
    """Decode a deep or transparent PNG: (rows, columns, 4) uint16."""
    # As 16-bit RGBA whatever it was: 8-bit samples come back times 257. Without alpha this is used for 16 bits only,
    # because TensorFlow fills the alpha of 1, 2 and 4-bit images with a wrong value.
    return tf.ensure_shape(tf.io.decode_png(contents, channels=4, dtype=tf.uint16), [None, None, 4])


def webp_image(contents: Tensor, raw: Tensor, size: Tensor) -> Tensor:
    """Decode a still WebP: (rows, columns, 3 or 4) uint8."""
    # TensorFlow 2.21 writes past its buffer when a WebP is animated, and the process dies (`free(): invalid size`).
    extended = tf.reduce_all(tf.equal(raw[12:16], tf.constant(list(b"VP8X"), tf.uint8)))
    animated = extended & tf.not_equal(tf.bitwise.bitwise_and(raw[20], 2), 0)
    # Bytes behind the file's own end would be taken for the rest of a damaged picture.
    end = tf.cast(tf.minimum(number(raw, 4, 4) + 8, tf.cast(size, tf.int64)), tf.int32)
    with tf.control_dependencies([demand(~animated, "animated WebP is not supported", size)]):
        contents = tf.strings.substr(contents, 0, end)
    image = tf.io.decode_image(contents, channels=0, expand_animations=False)
    return tf.ensure_shape(image, [None, None, None])


def gif_image(contents: Tensor, raw: Tensor, size: Tensor) -> Tensor:
    """Decode the first frame on its canvas: (rows, columns, 3) uint8.

    TensorFlow decodes every frame, ignores transparency, and fills the rest of the canvas with black. So a new stream
    is put together of the first frame alone, with white for the transparent entry of its palette.
    """

    def table(flags: Tensor) -> Tensor:
        bits = tf.bitwise.bitwise_and(flags, 7) + 1
        return tf.where(flags >= 128, 3 * tf.bitwise.left_shift(tf.ones_like(bits), bits), 0)

    def octet(at: Tensor) -> Tensor:
        return tf.cast(raw[tf.minimum(at, size)], tf.int32)

    def past_blocks(at: Tensor) -> Tensor:
        # At the end of the file or past it when the chain of length-prefixed blocks does not end.
        end, _ = tf.while_loop(
            lambda at, length: (length > 0) & (at < size),
            lambda at, length: (at + length + 1, octet(at + length + 1)),
            (at, octet(at)),
            parallel_iterations=1,
        )
        return end + 1

    def extension(at: Tensor, clear: Tensor) -> tuple[Tensor, Tensor]:
        control = tf.equal(octet(at + 1), 0xF9) & tf.equal(octet(at + 2), 4)
        given = tf.equal(octet(at + 3) % 2, 1)
        clear = tf.where(control, tf.where(given, octet(at + 6), -1), clear)
        return past_blocks(at + 2), clear

    colours = table(octet(10))
    frame, clear = tf.while_loop(
        lambda at, clear: tf.equal(octet(at), 0x21) & (at < size),
        extension,
        (13 + colours, tf.constant(-1)),
        parallel_iterations=1,
    )
    frame = tf.minimum(frame, size)
    own = table(octet(frame + 9))
    data = frame + 10 + own
    end = past_blocks(data + 1)
    checks = [
        demand(tf.equal(octet(frame), 0x2C), "GIF without a frame", size),
        demand(end <= size, "GIF is cut off in its first frame", size),
        demand(colours + own > 0, "GIF without colours", size),
    ]
    with tf.control_dependencies(checks):
        part = lambda at, length: tf.strings.substr(contents, at, length)  # noqa: E731

        def painted(at: Tensor, length: Tensor, index: Tensor) -> Tensor:
            first = tf.where((index >= 0) & (3 * index < length), 3 * index, length)
            white = tf.where(first < length, b"\xff\xff\xff", b"")
            rest = tf.minimum(first + 3, length)
            return tf.strings.join([part(at, first), white, part(at + rest, length - rest)])

        extent = part(frame + 5, 4)
        stream = tf.strings.join(
            [
                *(b"GIF89a", extent, part(10, 3), painted(13, colours, tf.where(own > 0, -1, clear))),
                *(b",\0\0\0\0", extent, part(frame + 9, 1), painted(frame + 10, own, clear)),
                *(part(data, end - data), b";"),
            ]
        )
    image = tf.ensure_shape(tf.io.decode_gif(stream), [None, None, None, 3])[0]
    left, top, wide, tall = (number(raw, frame + 1 + 2 * i, 2) for i in range(4))
    right = tf.maximum(number(raw, 6, 2) - left - wide, 0)
    below = tf.maximum(number(raw, 8, 2) - top - tall, 0)
    return _three(tf.pad(image, [[top, below], [left, right], [0, 0]], constant_values=255))


def bmp_image(raw: Tensor, size: Tensor) -> Tensor:
    """Decode a plain BMP file: (rows, columns, 3) uint8.

    Read by hand: TensorFlow's own reader takes palette indices for shades of grey.
    """
    size = tf.cast(size, tf.int64)
    start, header, width = (number(raw, at, 4) for at in (10, 14, 18))
    # Height is signed: negative when the rows come from top to bottom.
    height = number(raw, 22, 4)
    height = tf.where(height >= 2**31, height - 2**32, height)
    bits, packing, used = number(raw, 28, 2), number(raw, 30, 4), number(raw, 46, 4)
    # Compression 3 only says in which byte each colour is; blue, green, red is what compression 0 means.
    usual = tf.reduce_all(
        tf.equal(raw[54:66], tf.constant([0, 0, 255, 0, 0, 255, 0, 0, 255, 0, 0, 0], tf.uint8))
    )
    plain = tf.equal(packing, 0) & tf.reduce_any(tf.equal(bits, [1, 4, 8, 24, 32]))
    plain |= tf.equal(packing, 3) & tf.equal(bits, 32) & usual
    bits = tf.where(plain, bits, 8)  # nothing below may fail before the check that says why
    stride = (width * bits + 31) // 32 * 4
    tall = tf.abs(height)
    # Three masks stand behind the oldest header; later ones hold them.
    before = 14 + header + tf.where(tf.equal(packing, 3) & tf.equal(header, 40), tf.constant(12, tf.int64), 0)
    colours = 2 ** tf.minimum(bits, 8)
    coloured = tf.minimum(tf.where(tf.equal(used, 0), colours, used), colours)
    before += tf.where(bits <= 8, 4 * coloured, 0)
    checks = [
        demand(
            (header >= 40) & plain,
            "BMP is not of the plain kind: 1, 4, 8, 24 or 32 bits, no compression",
            size,
        ),
        demand((width > 0) & (width < 2**31) & (tall > 0), "BMP without pixels", size),
        demand(start >= before, "BMP whose pixels begin within its header or palette", size),
        # Divided and not multiplied: two 32-bit extents may overflow.
        demand((start <= size) & (tall <= (size - start) // tf.maximum(stride, 1)), "BMP is cut off", size),
    ]
    with tf.control_dependencies(checks):
        rows = tf.reshape(raw[start : start + tall * stride], tf.stack([tall, stride]))
    rows = tf.cond(height > 0, lambda: tf.reverse(rows, [0]), lambda: rows)

    def direct() -> Tensor:
        depth = bits // 8
        pixels = tf.reshape(rows[:, : width * depth], tf.stack([tall, width, depth]))
        return tf.reverse(pixels[:, :, :3], [2])

    def indexed() -> Tensor:
        entries = tf.where(tf.equal(used, 0), 2 ** tf.minimum(bits, 8), used)
        entries = tf.minimum(tf.minimum(entries, 256), tf.maximum(start - 14 - header, 0) // 4)
        first = 14 + header
        palette = tf.reverse(tf.reshape(raw[first : first + entries * 4], [-1, 4])[:, :3], [1])
        palette = tf.pad(palette, [[0, 256 - tf.shape(palette)[0]], [0, 0]])
        shifts = tf.cast(tf.range(8 - bits, -1, -bits), tf.uint8)
        mask = tf.cast(2 ** tf.minimum(bits, 8) - 1, tf.uint8)
        indices = tf.bitwise.bitwise_and(tf.bitwise.right_shift(rows[:, :, None], shifts), mask)
        indices = tf.reshape(indices, tf.stack([tall, -1]))[:, :width]
        return tf.gather(palette, tf.cast(indices, tf.int32))

    return _three(tf.cond(bits >= 24, direct, indexed))
