"""Write the two files of OpenVINO, Intel's runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bottleneck.contracts import Making, Reader
from bottleneck.exports.artefact import DOCUMENT, Artefact, as_text
from bottleneck.exports.quiet import quiet_converters
from bottleneck.models.outputs import output_names, save_model, stages_function


class OpenVinoFile(Artefact):
    """A float32 folder with the inputs and outputs of the ONNX file."""

    kind = "openvino"
    name = "openvino"
    reader = Reader("openvino_file", ("openvino",), "openvino")

    def make(self, model: Any, path: Path, making: Making) -> None:
        """As `Artefact.make`."""
        source = path.with_name("source")
        with quiet_converters():
            import openvino

            save_model(source, model, {"serving_default": stages_function(model, None)})
            # The runtime reads it: `openvino.convert_model` would report its use to its makers.
            network = openvino.Core().read_model(str(source))
            for output in network.outputs:
                (name,) = [
                    name
                    for name in output_names(model)
                    if name in output.names or output.any_name.startswith(name)
                ]
                output.tensor.set_names({name})
            network.set_rt_info(as_text(making.document), [DOCUMENT])
            path.mkdir()
            openvino.save_model(network, str(path / "model.xml"), compress_to_fp16=False)
