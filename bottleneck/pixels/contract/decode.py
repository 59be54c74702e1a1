"""Pixel contract 1: decode one image file to pixels.

It is one TensorFlow graph. The same graph runs at extraction, in the exported signature that takes raw bytes, and in
the stand-alone ``decode.py`` that lies beside a merged model.

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

import tensorflow as tf

from bottleneck.pixels.contract.fields import Tensor, chunks, jpeg_exif, octets_of, orientation_of
from bottleneck.pixels.contract.formats import (
    bmp_image,
    deep_png_image,
    demand,
    gif_image,
    jpeg_image,
    png_image,
    png_transparency_is_heeded,
    webp_image,
)
from bottleneck.pixels.contract.geometry import apart, finishing

CONTRACT = 1
RESIZES = ("stretch", "crop", "pad")


def decoder(height: int, width: int, resize: str = "stretch") -> tf.types.experimental.GenericFunction:
    """Build the function from one image file's bytes to pixels.

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

    kinds = ((tf.uint8, 3), (tf.uint8, 4), (tf.uint16, 4))
    fits = {kind: finishing(*kind, height, width, resize) for kind in kinds}

    def fit(image: Tensor, orientation: Tensor) -> Tensor:
        return fits[image.dtype, image.shape[-1]](image, orientation)

    def jpeg(contents: Tensor, raw: Tensor, size: Tensor) -> Tensor:
        orientation = orientation_of(raw, size, jpeg_exif(raw, size))
        return fit(jpeg_image(contents, orientation, height, width, resize), orientation)

    def png(contents: Tensor, raw: Tensor, size: Tensor) -> Tensor:
        exif, transparency, palette, data = chunks(
            raw, size, 8, (b"eXIf", b"tRNS", b"PLTE", b"IDAT"), png=True
        )
        orientation = orientation_of(raw, size, exif)
        deep = tf.equal(raw[24], 16)
        alpha = tf.equal(raw[25], 4) | tf.equal(raw[25], 6) | tf.greater_equal(transparency[0], 0)
        heeded = png_transparency_is_heeded(raw, transparency, palette, data)
        with tf.control_dependencies(
            [demand(heeded, "PNG whose transparency chunk is out of place or of a wrong length", size)]
        ):
            alpha = tf.identity(alpha)
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
        image, orientation = webp_image(contents, raw, size), orientation_of(raw, size, exif)
        return tf.cond(
            tf.equal(tf.shape(image)[2], 4),
            lambda: fit(tf.ensure_shape(image, [None, None, 4]), orientation),
            lambda: fit(tf.ensure_shape(image, [None, None, 3]), orientation),
        )

    def decode(contents: Tensor) -> Tensor:
        # On the CPU even where there is a GPU: its resize and products differ in the last bits.
        with tf.device("/CPU:0"):
            return _decode(contents)

    def _decode(contents: Tensor) -> Tensor:
        raw, size = octets_of(contents)

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
        branches = [lambda f=f: f(contents, raw, size) for f in (jpeg, *map(apart, (png, gif, bmp, webp)))]
        return tf.ensure_shape(tf.switch_case(kind, branches), [height, width, 3])

    signature = [tf.TensorSpec([], tf.string, name="image_bytes")]
    return tf.function(decode, input_signature=signature, autograph=False)
