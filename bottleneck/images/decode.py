"""Pixel contract 1: from the bytes of one image file to pixels, as one TensorFlow graph.

The same graph runs at extraction, in the exported signature that takes raw bytes, and in the stand-alone
``decode.py`` that lies beside a merged model. So this file imports TensorFlow and nothing of this package.

What the contract says, in order:

1. The format is told by content, never by suffix: JPEG, PNG, BMP, GIF, WebP. Anything else is an error; no decoder
   steps in for another.
2. JPEG: the accurate integer DCT (Pillow's own), at the DCT ratio 1, 2, 4 or 8 that still leaves at least the target.
   PNG: 16-bit samples are divided by 257. GIF: the first frame, on its canvas. BMP: 1, 4, 8, 24 and 32 bits,
   uncompressed; no RLE, no 16 bits, no OS/2 headers; its fourth byte is not alpha. APNG: the default image.
   Animated WebP: an error.
3. What is transparent lies on white.
4. EXIF orientation (JPEG, PNG, WebP) is applied; EXIF that cannot be read counts as orientation 1.
5. ``crop`` cuts the centre window of the target's aspect ratio; ``pad`` fits the whole image inside and centres it on
   black; ``stretch`` takes all of it.
6. Integer box averaging on each axis where the image has at least twice the target's pixels (a remainder is cut evenly
   from both ends), then bilinear interpolation with half-pixel centres. Values stay in 0..255 and are not rounded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

CONTRACT = 1
RESIZES = ("stretch", "crop", "pad")

# Real files have a handful of segments before the EXIF block and a few thousand chunks at most. The limits keep a
# crafted file of 4-byte segments from spending minutes in the graph; past them the search ends empty-handed.
_SEGMENTS = 512
_CHUNKS = 16384
_ZEROS = 64

Tensor = Any
Block = tuple[Tensor, Tensor]


def decoder(height: int, width: int, resize: str = "stretch") -> tf.types.experimental.GenericFunction:
    """The function from one image file's bytes to pixels.

    Parameters
    ----------
    height, width : int
        Extent of the result, at least 1.
    resize : {"stretch", "crop", "pad"}
        Whether the whole image is distorted to the target, its centre window is taken, or bars are added.

    Returns
    -------
    tf.function
        From a scalar string to (height, width, 3) float32 in 0..255, RGB. It may be called from many threads, within
        another `tf.function`, and by `tf.map_fn`. It raises `tf.errors.InvalidArgumentError` for bytes that are not a
        whole image of a known format.

    Raises
    ------
    ValueError
        For an extent below 1 or an unknown resize.

    Examples
    --------
    >>> png = tf.io.encode_png(tf.zeros([3, 5, 3], tf.uint8))
    >>> decoder(8, 8)(png).shape
    TensorShape([8, 8, 3])
    """
    if height < 1 or width < 1:
        raise ValueError(f"height and width must be at least 1, got {height} and {width}")
    if resize not in RESIZES:
        raise ValueError(f"resize must be one of {', '.join(RESIZES)}, got {resize!r}")

    # One traced function for each dtype, shared by the branches. Bytes stay bytes up to the resize: a cast of the whole
    # image to float32 first would cost time and four times the memory.
    def fitting(dtype: tf.DType) -> Callable[[Tensor, Tensor], Tensor]:
        signature = [tf.TensorSpec([None, None, 3], dtype), tf.TensorSpec([], tf.int32)]
        return tf.function(
            lambda image, orientation: _fit(_turn(image, orientation), height, width, resize),
            input_signature=signature,
            autograph=False,
        )

    fits = {dtype: fitting(dtype) for dtype in (tf.uint8, tf.float32)}

    def fit(image: Tensor, orientation: Tensor) -> Tensor:
        return fits[image.dtype](image, orientation)

    upright = tf.constant

    def jpeg(contents: Tensor, raw: Tensor, size: Tensor) -> Tensor:
        orientation = _orientation(raw, size, _jpeg_exif(raw, size))
        return fit(_jpeg(contents, orientation, height, width, resize), orientation)

    def png(contents: Tensor, raw: Tensor, size: Tensor) -> Tensor:
        exif, transparency = _chunks(raw, size, 8, (b"eXIf", b"tRNS"), png=True)
        orientation = _orientation(raw, size, exif)
        deep = tf.equal(raw[24], 16)
        alpha = tf.equal(raw[25], 4) | tf.equal(raw[25], 6) | tf.greater_equal(transparency[0], 0)
        return tf.cond(
            deep | alpha,
            lambda: fit(_png_fine(contents), orientation),
            lambda: fit(_three(tf.io.decode_png(contents, channels=3)), orientation),
        )

    def gif(contents: Tensor, raw: Tensor, size: Tensor) -> Tensor:
        return fit(_gif(contents, raw, size), upright(1))

    def bmp(contents: Tensor, raw: Tensor, size: Tensor) -> Tensor:
        return fit(_bmp(raw, size), upright(1))

    def webp(contents: Tensor, raw: Tensor, size: Tensor) -> Tensor:
        (exif,) = _chunks(raw, size, 12, (b"EXIF",), png=False)
        return fit(_webp(contents, raw, size), _orientation(raw, size, exif))

    def decode(contents: Tensor) -> Tensor:
        # On the CPU even where there is a GPU: its resize and products differ in the last bits.
        with tf.device("/CPU:0"):
            return _decode(contents)

    def _decode(contents: Tensor) -> Tensor:
        # Zeros at the end let headers be read at any position without a test of the length before each read.
        raw = tf.io.decode_raw(tf.strings.join([contents, b"\0" * _ZEROS]), tf.uint8)
        size = tf.strings.length(contents)

        def starts(magic: bytes, at: int = 0) -> Tensor:
            return tf.reduce_all(tf.equal(raw[at : at + len(magic)], tf.constant(list(magic), tf.uint8)))

        known = [
            starts(b"\xff\xd8\xff"),
            starts(b"\x89PNG\r\n\x1a\n"),
            starts(b"GIF8"),
            starts(b"BM"),
            starts(b"RIFF") & starts(b"WEBP", 8),
        ]
        with tf.control_dependencies(
            [_demand(tf.reduce_any(known), "not a JPEG, PNG, GIF, BMP or WebP image", size)]
        ):
            kind = tf.argmax(tf.cast(tf.stack(known), tf.int32), output_type=tf.int32)
        branches = [lambda f=f: f(contents, raw, size) for f in (jpeg, *map(_apart, (png, gif, bmp, webp)))]
        return tf.ensure_shape(tf.switch_case(kind, branches), [height, width, 3])

    signature = [tf.TensorSpec([], tf.string, name="image_bytes")]
    return tf.function(decode, input_signature=signature, autograph=False)


def _apart(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The same as one node of the graph that calls it.

    A branch that is not taken is walked node by node all the same, at each image: one node is soon walked. The common
    way (JPEG, upright) is left in place, where it costs no call.
    """
    return tf.function(function, autograph=False, experimental_attributes={"_noinline": True})


def _demand(condition: Tensor, message: str, size: Tensor) -> Tensor:
    return tf.debugging.Assert(condition, [f"{message} (bytes:", size, ")"])


def _three(image: Tensor) -> Tensor:
    return tf.ensure_shape(image, [None, None, 3])


def _number(raw: Tensor, at: Tensor, length: int, *, little: bool = True) -> Tensor:
    """An unsigned number of `length` bytes, as int64."""
    weights = [256**i for i in range(length)]
    octets = tf.cast(tf.slice(raw, [at], [length]), tf.int64)
    return tf.reduce_sum(octets * tf.constant(weights if little else weights[::-1], tf.int64))


# --------------------------------------------------------------------------------------------------- formats


def _jpeg(contents: Tensor, orientation: Tensor, height: int, width: int, resize: str) -> Tensor:
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


def _png_fine(contents: Tensor) -> Tensor:
    # As 16-bit RGBA whatever it was: 8-bit samples come back times 257, so that the division is exact. Without alpha
    # this is used for 16 bits only, because TensorFlow fills the alpha of 1, 2 and 4-bit images with a wrong value.
    image = tf.io.decode_png(contents, channels=4, dtype=tf.uint16)
    return _on_white(tf.cast(image, tf.float32) / 257.0)


def _webp(contents: Tensor, raw: Tensor, size: Tensor) -> Tensor:
    # TensorFlow 2.21 writes past its buffer when a WebP is animated, and the process dies (`free(): invalid size`).
    extended = tf.reduce_all(tf.equal(raw[12:16], tf.constant(list(b"VP8X"), tf.uint8)))
    animated = extended & tf.not_equal(tf.bitwise.bitwise_and(raw[20], 2), 0)
    with tf.control_dependencies([_demand(~animated, "animated WebP is not supported", size)]):
        contents = tf.identity(contents)
    image = tf.io.decode_image(contents, channels=0, expand_animations=False)
    image = tf.cast(tf.ensure_shape(image, [None, None, None]), tf.float32)
    return tf.cond(tf.equal(tf.shape(image)[2], 4), lambda: _on_white(image), lambda: _three(image))


def _on_white(image: Tensor) -> Tensor:
    image = tf.ensure_shape(image, [None, None, 4])
    alpha = image[..., 3:] / 255.0
    return image[..., :3] * alpha + 255.0 * (1.0 - alpha)


def _gif(contents: Tensor, raw: Tensor, size: Tensor) -> Tensor:
    """The first frame on its canvas.

    TensorFlow decodes every frame, ignores transparency, and fills the rest of the canvas with black. So a new stream
    is put together of the first frame alone, with white for the transparent entry of its palette.
    """

    def table(flags: Tensor) -> Tensor:
        bits = tf.bitwise.bitwise_and(flags, 7) + 1
        return tf.where(flags >= 128, 3 * tf.bitwise.left_shift(tf.ones_like(bits), bits), 0)

    def octet(at: Tensor) -> Tensor:
        return tf.cast(raw[tf.minimum(at, size)], tf.int32)

    def past_blocks(at: Tensor) -> Tensor:
        """Behind a chain of length-prefixed blocks; at the end of the file or past it when the chain does not end."""
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
        _demand(tf.equal(octet(frame), 0x2C), "GIF without a frame", size),
        _demand(end <= size, "GIF is cut off in its first frame", size),
        _demand(colours + own > 0, "GIF without colours", size),
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
    left, top, wide, tall = (_number(raw, frame + 1 + 2 * i, 2) for i in range(4))
    right = tf.maximum(_number(raw, 6, 2) - left - wide, 0)
    below = tf.maximum(_number(raw, 8, 2) - top - tall, 0)
    return _three(tf.pad(image, [[top, below], [left, right], [0, 0]], constant_values=255))


def _bmp(raw: Tensor, size: Tensor) -> Tensor:
    """Uncompressed BMP, by hand: TensorFlow's own reader takes palette indices for shades of grey."""
    size = tf.cast(size, tf.int64)
    start, header, width = (_number(raw, at, 4) for at in (10, 14, 18))
    # Height is signed: negative when the rows come from top to bottom.
    height = _number(raw, 22, 4)
    height = tf.where(height >= 2**31, height - 2**32, height)
    bits, packing, used = _number(raw, 28, 2), _number(raw, 30, 4), _number(raw, 46, 4)
    # Compression 3 only says in which byte each colour is; blue, green, red is what compression 0 means.
    usual = tf.reduce_all(
        tf.equal(raw[54:66], tf.constant([0, 0, 255, 0, 0, 255, 0, 0, 255, 0, 0, 0], tf.uint8))
    )
    plain = tf.equal(packing, 0) & tf.reduce_any(tf.equal(bits, [1, 4, 8, 24, 32]))
    plain |= tf.equal(packing, 3) & tf.equal(bits, 32) & usual
    bits = tf.where(plain, bits, 8)  # nothing below may fail before the check that says why
    stride = (width * bits + 31) // 32 * 4
    tall = tf.abs(height)
    checks = [
        _demand(
            (header >= 40) & plain,
            "BMP is not of the plain kind: 1, 4, 8, 24 or 32 bits, no compression",
            size,
        ),
        _demand((width > 0) & (width < 2**31) & (tall > 0), "BMP without pixels", size),
        # Divided and not multiplied: two 32-bit extents may overflow.
        _demand((start <= size) & (tall <= (size - start) // tf.maximum(stride, 1)), "BMP is cut off", size),
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


# ------------------------------------------------------------------------------------------------------ EXIF


def _jpeg_exif(raw: Tensor, size: Tensor) -> Block:
    """Start and length of the first EXIF segment before the picture's data; start -1 when there is none."""

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
    length = tf.cast(_number(raw, at + 2, 2, little=False), tf.int32)
    return tf.where(at_exif(at), at + 4, -1), length - 2


def _chunks(
    raw: Tensor, size: Tensor, first: int, names: tuple[bytes, ...], *, png: bool
) -> tuple[Block, ...]:
    """Start and length of the first chunk of each name in a PNG or RIFF file; start -1 for those that are missing."""
    sought = tf.constant([list(name) for name in names], tf.uint8)

    def step(at: Tensor, left: Tensor, starts: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        name = tf.slice(raw, [at + 4 if png else at], [4])
        length = _number(raw, at if png else at + 4, 4, little=not png)
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


def _orientation(raw: Tensor, size: Tensor, block: Block) -> Tensor:
    """Orientation 1..8 from a TIFF block, with or without ``Exif`` and two zeros before it; 1 unless it says so."""
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


def _turn(image: Tensor, orientation: Tensor) -> Tensor:
    """Undo the orientation: 2 to 4 mirror and turn about, 5 to 8 also swap rows and columns."""

    def moved(swap: bool, axes: list[int]) -> Callable[[], Tensor]:
        turned = (lambda: tf.transpose(image, [1, 0, 2])) if swap else (lambda: image)
        return lambda: tf.reverse(turned(), axes) if axes else turned()

    ways = [(swap, axes) for swap in (False, True) for axes in ([], [1], [0, 1], [0])]
    # EXIF counts 1 2 3 4 as above, but 5 6 7 8 as transposed: plain, mirrored, both, flipped.
    turned = _apart(lambda: tf.switch_case(orientation - 1, [moved(swap, axes) for swap, axes in ways]))
    return _three(tf.cond(orientation > 1, turned, lambda: image))


# -------------------------------------------------------------------------------------------------- geometry


def _fit(image: Tensor, height: int, width: int, resize: str) -> Tensor:
    shape = tf.shape(image)
    rows, columns = shape[0], shape[1]
    if resize == "crop":
        # The window of Keras' crop_to_aspect_ratio, in whole numbers; a strip keeps at least one pixel.
        wide = tf.cast(columns, tf.int64) * height // width
        tall = tf.cast(rows, tf.int64) * width // height
        kept_rows = tf.clip_by_value(tf.cast(tf.minimum(wide, 2**30), tf.int32), 1, rows)
        kept_columns = tf.clip_by_value(tf.cast(tf.minimum(tall, 2**30), tf.int32), 1, columns)
        top, left = (rows - kept_rows) // 2, (columns - kept_columns) // 2
        image = image[top : top + kept_rows, left : left + kept_columns]
        rows, columns = kept_rows, kept_columns
    tall, wide = tf.constant(height), tf.constant(width)
    if resize == "pad":
        # Rounded to the nearest, and by the target's own size, so that a strip never becomes a huge image first.
        long_rows, long_columns = tf.cast(rows, tf.int64), tf.cast(columns, tf.int64)
        upright = long_rows * width >= long_columns * height
        fit_columns = (2 * long_columns * height + long_rows) // (2 * long_rows)
        fit_rows = (2 * long_rows * width + long_columns) // (2 * long_columns)
        tall = tf.where(upright, height, tf.clip_by_value(tf.cast(fit_rows, tf.int32), 1, height))
        wide = tf.where(upright, tf.clip_by_value(tf.cast(fit_columns, tf.int32), 1, width), width)
    high, broad = tf.maximum(rows // tall, 1), tf.maximum(columns // wide, 1)
    extent = tf.stack([tall, wide])
    # antialias=True would do both steps, at a quarter of the speed to all of it, as machines and extents differ.
    image = tf.cond(
        high * broad > 1,
        lambda: tf.image.resize(_boxes(image, high, broad), extent),
        lambda: tf.image.resize(image, extent),
    )
    if resize == "pad":
        top, left = (height - tall) // 2, (width - wide) // 2
        image = tf.pad(image, [[top, height - tall - top], [left, width - wide - left], [0, 0]])
    return tf.ensure_shape(image, [height, width, 3])


def _boxes(image: Tensor, high: Tensor, broad: Tensor) -> Tensor:
    """Means of boxes of `high` x `broad` pixels; rows and columns that fill no box are cut from both ends."""
    shape = tf.shape(image)
    rows, columns = shape[0] // high, shape[1] // broad
    top, left = (shape[0] - rows * high) // 2, (shape[1] - columns * broad) // 2
    image = image[top : top + rows * high, left : left + columns * broad]
    # Rows first, one of each box at a time: the whole image never lies in memory as float32, and it takes a third of
    # the time of a mean over the middle axis. Columns by a product with a 0/1 matrix, for a mean over the middle of
    # (n, boxes, 3) is as slow. Sums of 8-bit values are exact below 2**24, whatever the order of summation.
    cube = tf.reshape(image, tf.stack([rows, high, columns * broad * 3]))

    def row(i: Tensor) -> Tensor:
        return tf.ensure_shape(tf.cast(cube[:, i], tf.float32), [None, None])

    _, total = tf.while_loop(
        lambda i, _: i < high,
        lambda i, total: (i + 1, total + row(i)),
        (tf.constant(1), row(tf.constant(0))),
        parallel_iterations=1,
    )
    gather = tf.tile(tf.eye(3), tf.stack([broad, 1]))
    total = tf.matmul(tf.reshape(total, tf.stack([rows * columns, broad * 3])), gather)
    return tf.reshape(total, tf.stack([rows, columns, 3])) / tf.cast(high * broad, tf.float32)
