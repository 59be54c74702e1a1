"""LiteRT (TensorFlow Lite) files, one image at a time: float32 and four smaller kinds."""

from __future__ import annotations

import zipfile
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bottleneck.contracts import Making, Reader
from bottleneck.exports.artefact import Artefact
from bottleneck.exports.making import DOCUMENT, LABELS, add_member, as_lines, as_text, examples
from bottleneck.exports.quiet import quiet_converters, silent_stderr
from bottleneck.models.outputs import IMAGE, save_model, stages_function

_SIGNATURE = "serving_default"


class _LiteRt(Artefact):
    """A flatbuffer with a zip behind it, as TensorFlow's own metadata tools append one: readers of either see theirs.

    Takes ``image`` (1, height, width, 3) float32 in 0..255 whatever the kind, and gives the stages as float32.
    """

    reader = Reader("litert")

    def make(self, model: Any, path: Path, making: Making) -> None:
        """As `Artefact.make`."""
        import tensorflow as tf

        source = path.with_name("source")
        with quiet_converters():
            save_model(source, model, {_SIGNATURE: stages_function(model, 1)})
            converter = tf.lite.TFLiteConverter.from_saved_model(str(source), signature_keys=[_SIGNATURE])
            self.set_up(converter, making)
            with silent_stderr():
                flatbuffer = converter.convert()
        path.write_bytes(flatbuffer)
        with zipfile.ZipFile(path, "a", zipfile.ZIP_STORED) as archive:
            add_member(archive, DOCUMENT, as_text(making.document))
            add_member(archive, LABELS, as_lines(making.document["classes"]))

    @abstractmethod
    def set_up(self, converter: Any, making: Making) -> None:
        """Tell the converter how to round."""


class Float32(_LiteRt):
    """Nothing rounded.

    Held to ten times what other kinds are: LiteRT adds up in another order, and less exactly. Against float64, on
    calibrated random weights, the largest error of a feature was 5.3e-5 of the spread where TensorFlow's was 1.2e-5
    (VGG16 at 128 px), and 7.1e-5 against 2.9e-5 (InceptionV3 at 96 px); a head that is sure of itself magnifies it.
    """

    kind = "litert"
    name = "model.tflite"
    tolerance = 1e-3

    def set_up(self, converter: Any, making: Making) -> None:
        """As it comes."""


class Float16(_LiteRt):
    """Weights in half precision, computed in float32: half the size."""

    kind = "litert-float16"
    name = "model-float16.tflite"
    tolerance = None

    def set_up(self, converter: Any, making: Making) -> None:
        """Half precision for weights."""
        import tensorflow as tf

        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]


class Dynamic(_LiteRt):
    """Weights in 8 bits, values rounded by the range that each call finds: a quarter of the size."""

    kind = "litert-dynamic"
    name = "model-dynamic.tflite"
    tolerance = None

    def set_up(self, converter: Any, making: Making) -> None:
        """8 bits for weights."""
        import tensorflow as tf

        converter.optimizations = [tf.lite.Optimize.DEFAULT]


class Int16x8(_LiteRt):
    """Weights in 8 bits, values in 16, by ranges found on example images."""

    kind = "litert-int16x8"
    name = "model-int16x8.tflite"
    tolerance = None

    def set_up(self, converter: Any, making: Making) -> None:
        """8 bits for weights, 16 for values."""
        import tensorflow as tf

        ops = tf.lite.OpsSet
        _by_example(
            converter,
            making,
            self.kind,
            ops.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8,
        )


class Int8(_LiteRt):
    """Weights and values in 8 bits, by ranges found on example images: the smallest, and the coarsest."""

    kind = "litert-int8"
    name = "model-int8.tflite"
    tolerance = None

    def set_up(self, converter: Any, making: Making) -> None:
        """8 bits for everything inside."""
        import tensorflow as tf

        _by_example(converter, making, self.kind, tf.lite.OpsSet.TFLITE_BUILTINS_INT8)


def _by_example(converter: Any, making: Making, kind: str, ops: Any) -> None:
    import tensorflow as tf

    sample = examples(making, kind)

    def feed() -> Iterator[dict[str, Any]]:
        for image in sample:
            yield {IMAGE: image[None]}

    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = feed
    # An operation without a kernel of that kind stays in float32, rather than no file at all.
    converter.target_spec.supported_ops = [ops, tf.lite.OpsSet.TFLITE_BUILTINS]
