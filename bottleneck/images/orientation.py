"""What is left of the pixel contract for a JPEG file whose picture was decoded elsewhere, as graphs: for extraction."""

from __future__ import annotations

import tensorflow as tf

from bottleneck.images.fields import Tensor, jpeg_exif, octets_of, orientation_of
from bottleneck.images.geometry import finishing


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
    fit = finishing(tf.uint8, height, width, resize)

    def finish(head: Tensor, image: Tensor) -> Tensor:
        with tf.device("/CPU:0"):
            return fit(image, _orientation(head))

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
            return _orientation(head)

    return tf.function(turn, input_signature=[tf.TensorSpec([], tf.string)], autograph=False)


def _orientation(head: Tensor) -> Tensor:
    raw, size = octets_of(head)
    return orientation_of(raw, size, jpeg_exif(raw, size))
