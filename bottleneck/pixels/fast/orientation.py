"""How a JPEG file is turned, by the pixel contract's own reading of its EXIF, as a graph: for extraction."""

from __future__ import annotations

import tensorflow as tf

from bottleneck.pixels.contract.fields import Tensor, jpeg_exif, octets_of, orientation_of


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
            raw, size = octets_of(head)
            return orientation_of(raw, size, jpeg_exif(raw, size))

    return tf.function(turn, input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
