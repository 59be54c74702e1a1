"""Turn, cut or pad, and resize a picture (pixel contract)."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from bottleneck.pixels.contract.fields import Tensor


def upright(image: Tensor, orientation: Tensor) -> Tensor:
    """Undo an EXIF orientation of 1 to 8.

    2 to 4 mirror and turn about; 5 to 8 also swap rows and columns.

    Parameters
    ----------
    image : tf.Tensor
        (rows, columns, 3).
    orientation : tf.Tensor
        () int32, 1 to 8.

    Examples
    --------
    >>> upright(tf.zeros([2, 5, 3]), tf.constant(6)).shape
    TensorShape([5, 2, 3])
    """

    def moved(swap: bool, axes: list[int]) -> Callable[[], Tensor]:
        turned = (lambda: tf.transpose(image, [1, 0, 2])) if swap else (lambda: image)
        return lambda: tf.reverse(turned(), axes) if axes else turned()

    ways = [(swap, axes) for swap in (False, True) for axes in ([], [1], [0, 1], [0])]
    # EXIF counts 1 2 3 4 as above, but 5 6 7 8 as transposed: plain, mirrored, both, flipped.
    return tf.switch_case(orientation - 1, [moved(swap, axes) for swap, axes in ways])


def opaque(image: Tensor) -> Tensor:
    """Convert to (..., 3) float32 in 0..255; alpha lies on white.

    Takes (..., 3) of any type, or (..., 4) uint8 or uint16 with alpha.

    Examples
    --------
    >>> opaque(tf.constant([0, 100, 255, 51], tf.uint8)).numpy().tolist()
    [204.0, 224.0, 255.0]
    """
    pixels = tf.cast(image, tf.float32)
    if image.shape[-1] == 3:
        return pixels
    if image.dtype == tf.uint16:
        pixels = pixels / 257.0  # exact where they were 8 bits
    alpha = pixels[..., 3:] / 255.0
    return pixels[..., :3] * alpha + 255.0 * (1.0 - alpha)


def fitted(image: Tensor, height: int, width: int, resize: str) -> Tensor:
    """Bring `image` to the target's extent (points 5 and 6).

    Parameters
    ----------
    image : tf.Tensor
        (rows, columns, 3) uint8 or float32, or (rows, columns, 4) uint8 or uint16: with alpha.
    height, width : int
    resize : {"stretch", "crop", "pad"}

    Returns
    -------
    tf.Tensor
        (height, width, 3) float32.

    Examples
    --------
    >>> float(fitted(tf.constant([[[0, 0, 0], [100, 0, 0]]], tf.uint8), 1, 1, "stretch")[0, 0, 0])
    50.0
    """
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
        portrait = long_rows * width >= long_columns * height
        fit_columns = (2 * long_columns * height + long_rows) // (2 * long_rows)
        fit_rows = (2 * long_rows * width + long_columns) // (2 * long_columns)
        tall = tf.where(portrait, height, tf.clip_by_value(tf.cast(fit_rows, tf.int32), 1, height))
        wide = tf.where(portrait, tf.clip_by_value(tf.cast(fit_columns, tf.int32), 1, width), width)
    high, broad = tf.maximum(rows // tall, 1), tf.maximum(columns // wide, 1)
    extent = tf.stack([tall, wide])
    # antialias=True would do both steps, at a quarter of the speed to all of it, as machines and extents differ.
    image = tf.cond(
        high * broad > 1,
        lambda: tf.image.resize(_boxes(image, high, broad), extent),
        lambda: tf.image.resize(opaque(image) if image.shape[-1] == 4 else image, extent),
    )
    if resize == "pad":
        top, left = (height - tall) // 2, (width - wide) // 2
        image = tf.pad(image, [[top, height - tall - top], [left, width - wide - left], [0, 0]])
    return tf.ensure_shape(image, [height, width, 3])


def _boxes(image: Tensor, high: Tensor, broad: Tensor) -> Tensor:
    """Average boxes of `high` x `broad` pixels; cut the rest evenly."""
    shape, channels = tf.shape(image), image.shape[-1]
    rows, columns = shape[0] // high, shape[1] // broad
    top, left = (shape[0] - rows * high) // 2, (shape[1] - columns * broad) // 2
    image = image[top : top + rows * high, left : left + columns * broad]
    # Rows first, one of each box at a time: the whole image never lies in memory as float32, and it takes a third of
    # the time of a mean over the middle axis. Columns by a product with a 0/1 matrix, for a mean over the middle of
    # (n, boxes, 3) is as slow. Sums of 8-bit values are exact below 2**24, whatever the order of summation.
    # What is transparent is laid on white as late as here: of a whole image that took 5 GB more.
    cube = tf.reshape(image, tf.stack([rows, high, columns * broad * channels]))

    def row(i: Tensor) -> Tensor:
        if channels == 3:
            return tf.ensure_shape(tf.cast(cube[:, i], tf.float32), [None, None])
        pixels = opaque(tf.reshape(cube[:, i], tf.stack([rows, columns * broad, channels])))
        return tf.ensure_shape(tf.reshape(pixels, tf.stack([rows, columns * broad * 3])), [None, None])

    _, total = tf.while_loop(
        lambda i, _: i < high,
        lambda i, total: (i + 1, total + row(i)),
        (tf.constant(1), row(tf.constant(0))),
        parallel_iterations=1,
    )
    gather = tf.tile(tf.eye(3), tf.stack([broad, 1]))
    total = tf.matmul(tf.reshape(total, tf.stack([rows * columns, broad * 3])), gather)
    return tf.reshape(total, tf.stack([rows, columns, 3])) / tf.cast(high * broad, tf.float32)


def finishing(
    dtype: tf.DType, channels: int, height: int, width: int, resize: str
) -> Callable[[Tensor, Tensor], Tensor]:
    """Build the function from a raw picture to the target (points 3-6).

    Parameters
    ----------
    dtype : tf.DType
        Of the picture: tf.uint8, or tf.uint16 with alpha.
    channels : int
        3, or 4 with alpha.
    height, width : int
    resize : {"stretch", "crop", "pad"}

    Returns
    -------
    tf.function
        From (rows, columns, channels) of that dtype, and the EXIF orientation, () int32, to (height, width, 3) float32.

    Examples
    --------
    >>> finishing(tf.uint8, 3, 4, 4, "stretch")(tf.zeros([2, 5, 3], tf.uint8), tf.constant(6)).shape
    TensorShape([4, 4, 3])
    """

    # One traced function for each kind of picture, shared by the branches. Bytes stay bytes up to the resize: a cast of
    # the whole image to float32 first would cost time and four times the memory.
    def turned_and_fitted(image: Tensor, orientation: Tensor) -> Tensor:
        turned = apart(lambda: upright(image, orientation))
        image = tf.ensure_shape(tf.cond(orientation > 1, turned, lambda: image), [None, None, channels])
        return fitted(image, height, width, resize)

    signature = [tf.TensorSpec([None, None, channels], dtype), tf.TensorSpec([], tf.int32)]
    return tf.function(turned_and_fitted, input_signature=signature, autograph=False)


def apart(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Wrap `function` as one node of the graph that calls it.

    A branch that is not taken is walked node by node all the same, at each image: one node is soon walked. The common
    way (JPEG, upright) is left in place, where it costs no call.

    Examples
    --------
    >>> int(apart(lambda: tf.constant(2))())
    2
    """
    return tf.function(function, autograph=False, experimental_attributes={"_noinline": True})
