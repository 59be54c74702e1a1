"""Pixel contract 1: from the bytes of one image file to pixels, as one TensorFlow graph.

The same graph runs at extraction, in the exported signature that takes raw bytes, and in the stand-alone
``decode.py`` that lies beside a merged model.

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

# The four files of the contract, this one, `fields`, `formats` and `geometry`, import TensorFlow and each other and
# nothing else: `standalone` makes one file of them.
from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from bottleneck.images.fields import Tensor, chunks, jpeg_exif, orientation_of
from bottleneck.images.formats import (
    bmp_image,
    deep_png_image,
    demand,
    gif_image,
    jpeg_image,
    png_image,
    webp_image,
)
from bottleneck.images.geometry import fitted, upright

CONTRACT = 1
RESIZES = ("stretch", "crop", "pad")
_ZEROS = 64


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

    fits = {dtype: _fitting(dtype, height, width, resize) for dtype in (tf.uint8, tf.float32)}

    def fit(image: Tensor, orientation: Tensor) -> Tensor:
        return fits[image.dtype](image, orientation)

    def jpeg(contents: Tensor, raw: Tensor, size: Tensor) -> Tensor:
        orientation = orientation_of(raw, size, jpeg_exif(raw, size))
        return fit(jpeg_image(contents, orientation, height, width, resize), orientation)

    def png(contents: Tensor, raw: Tensor, size: Tensor) -> Tensor:
        exif, transparency = chunks(raw, size, 8, (b"eXIf", b"tRNS"), png=True)
        orientation = orientation_of(raw, size, exif)
        deep = tf.equal(raw[24], 16)
        alpha = tf.equal(raw[25], 4) | tf.equal(raw[25], 6) | tf.greater_equal(transparency[0], 0)
        return tf.cond(
            deep | alpha,
            lambda: fit(deep_png_image(contents), orientation),
            lambda: fit(png_image(contents), orientation),
        )

    def gif(contents: Tensor, raw: Tensor, size: Tensor) -> Tensor:
        return fit(gif_image(contents, raw, size), tf.constant(1))

    def bmp(contents: Tensor, raw: Tensor, size: Tensor) -> Tensor:
        return fit(bmp_image(raw, size), tf.constant(1))

    def webp(contents: Tensor, raw: Tensor, size: Tensor) -> Tensor:
        (exif,) = chunks(raw, size, 12, (b"EXIF",), png=False)
        return fit(webp_image(contents, raw, size), orientation_of(raw, size, exif))

    def decode(contents: Tensor) -> Tensor:
        # On the CPU even where there is a GPU: its resize and products differ in the last bits.
        with tf.device("/CPU:0"):
            return _decode(contents)

    def _decode(contents: Tensor) -> Tensor:
        raw, size = _octets(contents)

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
            [demand(tf.reduce_any(known), "not a JPEG, PNG, GIF, BMP or WebP image", size)]
        ):
            kind = tf.argmax(tf.cast(tf.stack(known), tf.int32), output_type=tf.int32)
        branches = [lambda f=f: f(contents, raw, size) for f in (jpeg, *map(_apart, (png, gif, bmp, webp)))]
        return tf.ensure_shape(tf.switch_case(kind, branches), [height, width, 3])

    signature = [tf.TensorSpec([], tf.string, name="image_bytes")]
    return tf.function(decode, input_signature=signature, autograph=False)


def finisher(height: int, width: int, resize: str = "stretch") -> tf.types.experimental.GenericFunction:
    """The function from the picture of a JPEG file, decoded elsewhere, to pixels: points 4 to 6 of the contract.

    Parameters
    ----------
    height, width : int
        As of `decoder`.
    resize : {"stretch", "crop", "pad"}
        As of `decoder`.

    Returns
    -------
    tf.function
        From a scalar string, the file up to its data, and (rows, columns, 3) uint8, the picture as it lies in the file
        at the DCT ratio of the contract, to (height, width, 3) float32 in 0..255, RGB.

    Examples
    --------
    >>> file = tf.io.encode_jpeg(tf.zeros([40, 60, 3], tf.uint8))
    >>> finisher(8, 8)(file, tf.io.decode_jpeg(file)).shape
    TensorShape([8, 8, 3])
    """
    fit = _fitting(tf.uint8, height, width, resize)

    def finish(head: Tensor, image: Tensor) -> Tensor:
        with tf.device("/CPU:0"):
            raw, size = _octets(head)
            return fit(image, orientation_of(raw, size, jpeg_exif(raw, size)))

    signature = [tf.TensorSpec([], tf.string), tf.TensorSpec([None, None, 3], tf.uint8)]
    return tf.function(finish, input_signature=signature, autograph=False)


def turning() -> tf.types.experimental.GenericFunction:
    """The function from the bytes of a JPEG file to its EXIF orientation, 1 to 8: how point 4 of the contract has it.

    Returns
    -------
    tf.function
        From a scalar string, the file at least up to its data, to () int32.

    Examples
    --------
    >>> int(turning()(tf.io.encode_jpeg(tf.zeros([8, 8, 3], tf.uint8))))
    1
    """

    def turn(head: Tensor) -> Tensor:
        with tf.device("/CPU:0"):
            raw, size = _octets(head)
            return orientation_of(raw, size, jpeg_exif(raw, size))

    return tf.function(turn, input_signature=[tf.TensorSpec([], tf.string)], autograph=False)


def _octets(contents: Tensor) -> tuple[Tensor, Tensor]:
    """A file's bytes (n,) uint8 with zeros behind them, and how many bytes it has, () int32."""
    # Zeros at the end let headers be read at any position without a test of the length before each read.
    raw = tf.io.decode_raw(tf.strings.join([contents, b"\0" * _ZEROS]), tf.uint8)
    return raw, tf.strings.length(contents)


def _fitting(dtype: tf.DType, height: int, width: int, resize: str) -> Callable[[Tensor, Tensor], Tensor]:
    """From a picture of that dtype as it lies in its file, and its orientation, to the target."""

    # One traced function for each dtype, shared by the branches. Bytes stay bytes up to the resize: a cast of the whole
    # image to float32 first would cost time and four times the memory.
    def turned_and_fitted(image: Tensor, orientation: Tensor) -> Tensor:
        turned = _apart(lambda: upright(image, orientation))
        image = tf.ensure_shape(tf.cond(orientation > 1, turned, lambda: image), [None, None, 3])
        return fitted(image, height, width, resize)

    signature = [tf.TensorSpec([None, None, 3], dtype), tf.TensorSpec([], tf.int32)]
    return tf.function(turned_and_fitted, input_signature=signature, autograph=False)


def _apart(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The same as one node of the graph that calls it.

    A branch that is not taken is walked node by node all the same, at each image: one node is soon walked. The common
    way (JPEG, upright) is left in place, where it costs no call.
    """
    return tf.function(function, autograph=False, experimental_attributes={"_noinline": True})
