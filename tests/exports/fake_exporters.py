"""Exporters that take milliseconds, and a bare run that needs no process: what `export` does with what they give."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from bottleneck.contracts import Making, Reader
from bottleneck.errors import ExportError
from bottleneck.exports.artefact import as_text
from bottleneck.exports.bare import BareResult
from bottleneck.models import certificate
from bottleneck.models.comparison import Outputs

#: The models that were "written", by the text in their files.
_MODELS: dict[str, Any] = {}

_ANSWERS: dict[tuple[int, bytes], Outputs] = {}


class Plain:
    """The model as it is."""

    kind = "plain"
    name = "model.plain"
    tolerance: ClassVar[float | None] = 1e-4
    reader = Reader("keras_file")
    takes_bytes = False
    live = False
    #: Added to the features, and whether first choices turn.
    shift = 0.0
    turned = False

    def write(self, model: Any, folder: Path, making: Making) -> Path:
        """A few lines that say which model it is."""
        number = str(len(_MODELS))
        _MODELS[number] = model, making
        document = {
            "model": number,
            "shift": self.shift,
            "turned": self.turned,
            "document": as_text(making.document),
        }
        (folder / self.name).write_text(json.dumps(document))
        return folder / self.name


class Files(Plain):
    """Takes image files too."""

    kind, name, takes_bytes = "files", "files.plain", True


class Live(Plain):
    """Keras is said to load it."""

    kind, name, live = "live", "live.plain", True


class Wrong(Plain):
    """Not the model that was given."""

    kind, name, shift = "wrong", "wrong.plain", 0.5


class Rough(Plain):
    """Rounds, and keeps its first choices."""

    kind, name, tolerance, shift = "rough", "rough.plain", None, 0.5


class Poor(Plain):
    """Rounds too much."""

    kind, name, tolerance, turned = "poor", "poor.plain", None, True


class Impossible(Plain):
    """Cannot be made, and leaves something behind."""

    kind, name = "impossible", "impossible.plain"
    why = "there is no such operation in this format"

    def write(self, model: Any, folder: Path, making: Making) -> Path:
        (folder / self.name).write_text("half")
        raise ExportError(self.why)


class RoughImpossible(Impossible):
    """The same of a kind that rounds."""

    kind, name, tolerance = "rough-impossible", "rough-impossible.plain", None


class RoughFull(RoughImpossible):
    """It would round, but the disk is full."""

    kind, name = "rough-full", "rough-full.plain"
    why = "ResourceExhausted: variables.data: No space left on device"


class Stranger(Plain):
    """Carries other classes than the model's."""

    kind, name = "stranger", "stranger.plain"

    def write(self, model: Any, folder: Path, making: Making) -> Path:
        path = super().write(model, folder, making)
        path.write_text(json.dumps({**json.loads(path.read_text()), "document": '{"classes": []}'}))
        return path


KINDS = {
    kind.kind: f"{__name__}:{kind.__name__}"
    for kind in (Plain, Files, Live, Wrong, Rough, Poor, Impossible, RoughImpossible, RoughFull, Stranger)
}


def answers(model: Any, pixels: np.ndarray, batch: int = 8) -> Outputs:
    """`parity.model_outputs`, once for each model and image: the models of a test outlive it."""
    key = id(model), hashlib.sha256(pixels.tobytes()).digest()
    if key not in _ANSWERS:
        _ANSWERS[key] = _of_model(model, pixels, batch)
    return _ANSWERS[key]


_of_model = certificate.model_outputs


def run_here(
    decode: Callable[[bytes], np.ndarray],
    reader: Reader,
    artefact: Path,
    *,
    pixels: np.ndarray | None = None,
    files: Sequence[bytes] | None = None,
    **_: object,
) -> BareResult:
    """`run_bare` without the process; `decode` stands for the decoder in the artefact."""
    written = json.loads(artefact.read_text())
    model, _ = _MODELS[written["model"]]
    if files is not None:
        pixels = np.stack([decode(data) for data in files])
    assert pixels is not None
    found = answers(model, pixels)
    chances = np.roll(found.probabilities, 1, axis=1) if written["turned"] else found.probabilities
    outputs = {
        "features": found.features + written["shift"],
        "logits": found.logits,
        "probabilities": chances,
    }
    if files is not None:
        outputs = {"probabilities": chances}
    return BareResult(outputs, 1.25, json.loads(written["document"]))
