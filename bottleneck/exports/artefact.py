"""What all kinds of artefact share: libraries and weights looked at first, written aside, named when whole."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from bottleneck.contracts import Making, Reader
from bottleneck.errors import BottleneckError, ExportError
from bottleneck.exports.reader import require_libraries
from bottleneck.system.aside import written_aside
from bottleneck.system.disk_errors import refusal


class Artefact(ABC):
    """One kind of artefact, as `contracts.Exporter` says; a kind adds how its file or folder is made."""

    kind: ClassVar[str]
    name: ClassVar[str]
    tolerance: ClassVar[float | None] = 1e-4
    reader: ClassVar[Reader]
    takes_bytes: ClassVar[bool] = False
    live: ClassVar[bool] = False

    def write(self, model: Any, folder: Path, making: Making) -> Path:
        """As `contracts.Exporter.write`."""
        require_libraries(self.reader, self.kind)
        check_weights(model, self.kind)
        target = folder / self.name
        try:
            with written_aside(target) as aside:
                self.make(model, aside, making)
        except BottleneckError:
            raise
        except OSError as error:
            raise ExportError(
                f"{target} cannot be written: {refusal(error)}; nothing was put in its place"
            ) from error
        # Converters raise errors of every kind, for a full disk too, and none of them says which file it was about.
        except Exception as error:
            first = next((line for line in str(error).splitlines() if line.strip()), "it gives no reason")
            raise ExportError(
                f"{target} cannot be made: {type(error).__name__}: {first}; nothing was put in its place"
            ) from error
        return target

    @abstractmethod
    def make(self, model: Any, path: Path, making: Making) -> None:
        """Write `model` as `path`, whose folder is empty and goes away afterwards, with whatever else is in it."""


def check_weights(model: Any, kind: str) -> None:
    """Refuse a model of which a weight is not finite.

    Raises
    ------
    ExportError
        Names the weight.
    """
    for weight in model.weights:
        values = np.asarray(weight.value)
        bad = values.size - np.count_nonzero(np.isfinite(values))
        if bad:
            raise ExportError(
                f"{kind}: {bad:,} of {values.size:,} values of the weight {weight.path} are not finite, so nothing was "
                "written. Train again at a smaller rate, or load the base's weights anew"
            )
