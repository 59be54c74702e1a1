"""Write an ONNX file from a frozen graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bottleneck.contracts import Making, Reader
from bottleneck.exports.artefact import DOCUMENT, Artefact, as_text
from bottleneck.exports.quiet import quiet_converters
from bottleneck.models.outputs import IMAGE, frozen_function, output_names

#: The version of ONNX' operators that the file is written in; runtimes since early 2023 know it.
OPSET = 18


class OnnxFile(Artefact):
    """An ONNX file for any number of images.

    It takes ``image`` (n, height, width, 3) float32 in 0..255 and gives the stages.

    Keras' own ONNX export leaves out the constants of a Normalization layer, so that EfficientNets do not run: here
    the graph is frozen first, so that nothing can be left out.
    """

    kind = "onnx"
    name = "model.onnx"
    reader = Reader("onnx_file", ("tf2onnx", "onnx", "onnxruntime"), "onnx")

    def make(self, model: Any, path: Path, making: Making) -> None:
        """As `Artefact.make`."""
        path.write_bytes(onnx_model(model, making).SerializeToString())


def onnx_model(model: Any, making: Making) -> Any:
    """Convert a model to an `onnx.ModelProto`."""
    function = frozen_function(model)
    inputs = {function.inputs[0].name: IMAGE}
    # A traced function's outputs are flat, in the order of their sorted names.
    outputs = {
        tensor.name: name for tensor, name in zip(function.outputs, sorted(output_names(model)), strict=True)
    }
    with quiet_converters():
        import tf2onnx

        proto, _ = tf2onnx.convert.from_graph_def(
            function.graph.as_graph_def(),
            input_names=list(inputs),
            output_names=list(outputs),
            opset=OPSET,
            tensors_to_rename={**inputs, **outputs},
        )
    proto.graph.name = "bottleneck_merged"
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "n"
    member = proto.metadata_props.add()
    member.key, member.value = DOCUMENT, as_text(making.document)
    return proto
