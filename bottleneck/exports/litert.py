"""Write LiteRT (TensorFlow Lite) files: float32 and four smaller kinds."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, ClassVar

from bottleneck.contracts import Making, Reader
from bottleneck.exports.artefact import DOCUMENT, LABELS, Artefact, add_member, as_lines, as_text, examples
from bottleneck.exports.quiet import quiet_converters, silent_stderr
from bottleneck.models.outputs import IMAGE, save_model, stages_function

_SIGNATURE = "serving_default"


class _LiteRt(Artefact):
    """A flatbuffer with a zip behind it.

    TensorFlow's own metadata tools append such a zip; readers of either format see theirs. Every kind takes ``image``
    (1, height, width, 3) float32 in 0..255, and gives the stages as float32.
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

    def set_up(self, converter: Any, making: Making) -> None:
        """Tell the converter how to round; here, not at all."""


class Float32(_LiteRt):
    """Nothing is rounded.

    Its tolerance is ten times that of other formats: LiteRT adds up in another order, and less exactly. Against
    float64, on calibrated random weights, the largest error of a feature was 5.3e-5 of the spread where TensorFlow's
    was 1.2e-5 (VGG16 at 128 px), and 7.1e-5 against 2.9e-5 (InceptionV3 at 96 px); a head that is sure of itself
    magnifies it.
    """

    kind = "litert"
    name = "model.tflite"
    tolerance = 1e-3


class Dynamic(_LiteRt):
    """Weights in 8 bits, ranges from each call: a quarter the size."""

    kind = "litert-dynamic"
    name = "model-dynamic.tflite"
    tolerance = None

    def set_up(self, converter: Any, making: Making) -> None:
        """Round weights to 8 bits, the converter's default."""
        import tensorflow as tf

        converter.optimizations = [tf.lite.Optimize.DEFAULT]


class Float16(Dynamic):
    """Weights in half precision, computation in float32: half the size."""

    kind = "litert-float16"
    name = "model-float16.tflite"

    def set_up(self, converter: Any, making: Making) -> None:
        """Round weights to half precision."""
        import tensorflow as tf

        super().set_up(converter, making)
        converter.target_spec.supported_types = [tf.float16]


class Int8(Dynamic):
    """Weights and values in 8 bits: the smallest and coarsest kind.

    The ranges of values come from example images.
    """

    kind = "litert-int8"
    name = "model-int8.tflite"
    operations: ClassVar[str] = "TFLITE_BUILTINS_INT8"

    def set_up(self, converter: Any, making: Making) -> None:
        """Round weights and values by the ranges on example images."""
        import tensorflow as tf

        sample = examples(making, self.kind)
        super().set_up(converter, making)
        converter.representative_dataset = lambda: ({IMAGE: image[None]} for image in sample)
        # An operation without a kernel of that kind stays in float32, rather than no file at all.
        converter.target_spec.supported_ops = [
            tf.lite.OpsSet[self.operations],
            tf.lite.OpsSet.TFLITE_BUILTINS,
        ]


class Int16x8(Int8):
    """Weights in 8 bits, values in 16, ranges from example images."""

    kind = "litert-int16x8"
    name = "model-int16x8.tflite"
    operations = "EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8"
