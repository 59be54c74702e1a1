"""Write a SavedModel that takes pixels or image files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bottleneck.contracts import Making, Reader
from bottleneck.exports.artefact import DOCUMENT, LABELS, Artefact, as_lines, as_text
from bottleneck.exports.quiet import quiet_converters
from bottleneck.models.outputs import IMAGE, answer_names, save_model, stages_function
from bottleneck.schema import Pixels

#: Files in this folder travel with the model; TensorFlow's tools ignore it.
EXTRA = "assets.extra"


class SavedModel(Artefact):
    """A folder with three signatures, each for any number of images.

    ``serving_default``
        ``image`` (n, height, width, 3) float32 in 0..255, RGB, to ``probabilities`` (n, k), and the score (n,) where
        the model has one. Bytes are refused: a caller with uint8 pixels casts them.
    ``stages``
        The same to ``features`` and ``logits`` too.
    ``serve_bytes``
        ``image_bytes`` (n,) contents of image files, to what ``serving_default`` gives. Decoded in the graph by the
        code that decoded the training images. One file that is not a whole image fails the whole request, with the
        reason and without saying which: a graph has no way to leave one out. The name ends in ``_bytes`` because
        TensorFlow Serving's REST interface then takes base64 as ``{"b64": …}``.
    """

    kind = "saved_model"
    name = "saved_model"
    reader = Reader("saved_model")
    takes_bytes = True

    def make(self, model: Any, path: Path, making: Making) -> None:
        """As `Artefact.make`."""
        with quiet_converters():
            save_model(path, model, _signatures(model, making.pixels))
        extra = path / EXTRA
        extra.mkdir()
        (extra / DOCUMENT).write_text(as_text(making.document), "utf-8")
        (extra / LABELS).write_text(as_lines(making.document["classes"]), "utf-8")


def _signatures(model: Any, pixels: Pixels) -> dict[str, Any]:
    import tensorflow as tf

    from bottleneck.pixels.contract.decode import decoder

    stages, names = stages_function(model, None), answer_names(model)
    decode = decoder(pixels.height, pixels.width, pixels.resize)
    image = tf.TensorSpec((None, pixels.height, pixels.width, 3), tf.float32, name=IMAGE)
    files = tf.TensorSpec((None,), tf.string, name="image_bytes")

    def any_number(images: Any) -> dict[str, Any]:
        # Not every kernel takes a batch of none: such a batch gets one black image, whose row is cut off again.
        count = tf.shape(images)[0]
        padded = tf.pad(images, [[0, tf.cast(tf.equal(count, 0), tf.int32)], [0, 0], [0, 0], [0, 0]])
        return {name: rows[:count] for name, rows in stages(padded).items()}

    def answers(images: Any) -> dict[str, Any]:
        rows = any_number(images)
        return {name: rows[name] for name in names}

    def from_files(contents: Any) -> dict[str, Any]:
        images = tf.map_fn(decode, contents, fn_output_signature=tf.TensorSpec(image.shape[1:], tf.float32))
        return answers(images)

    def traced(function: Any, spec: Any) -> Any:
        return tf.function(function, input_signature=[spec], autograph=False).get_concrete_function()

    return {
        "serving_default": traced(answers, image),
        "stages": traced(any_number, image),
        "serve_bytes": traced(from_files, files),
    }
