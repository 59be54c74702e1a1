"""Save where a fine-tuning stands, after every epoch.

Arrays and JSON lie in one ``.npz``, without pickle.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, FiniteFloat

from bottleneck.errors import TuningError
from bottleneck.schema import Frozen, StageDone
from bottleneck.schema.strict_json import MalformedDocument, parse_as
from bottleneck.system.durable import publish

_POINT = "point"


class Checkpoint(Frozen):
    """A moment of a fine-tuning, between two epochs.

    Parameters
    ----------
    identity : str
        Of everything that decides its course: another fine-tuning does not go on from here.
    done : tuple of StageDone
        The stages that are over.
    history : tuple of mapping
        Of the stage that is under way.
    best : int
        Its best epoch so far.
    """

    format: Literal[1] = 1
    identity: str = Field(pattern=r"^[0-9a-f]{64}$")
    done: tuple[StageDone, ...]
    history: tuple[Mapping[str, FiniteFloat], ...] = Field(min_length=1)
    best: int = Field(ge=0)


Arrays = Mapping[str, list[np.ndarray]]


def save_checkpoint(path: Path, point: Checkpoint, arrays: Arrays) -> None:
    """Replace what is at `path`, in one step.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "checkpoint.npz"
    >>> now = Checkpoint(identity="0" * 64, done=(), history=({"epoch": 0},), best=0)
    >>> save_checkpoint(path, now, {"now": [np.arange(3)]})
    >>> point, arrays = load_checkpoint(path, "0" * 64)
    >>> point.best, arrays["now"][0].tolist(), load_checkpoint(path, "1" * 64)
    (0, [0, 1, 2], None)
    """
    named: dict[str, Any] = {
        f"{group}.{number}": part for group, parts in arrays.items() for number, part in enumerate(parts)
    }
    buffer = io.BytesIO()
    text = np.frombuffer(point.model_dump_json().encode("utf-8"), np.uint8)
    np.savez(buffer, **{_POINT: text, **named})
    publish(path, buffer.getbuffer(), replace=True)


def load_checkpoint(path: Path, identity: str) -> tuple[Checkpoint, Arrays] | None:
    """Read the checkpoint at `path` and its arrays by group.

    None where there is none, or one of another fine-tuning.

    Raises
    ------
    TuningError
        The file is damaged.
    """
    if not path.exists():
        return None
    try:
        # Opened here: NumPy leaves a damaged file open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            point = parse_as(Checkpoint, archive[_POINT].tobytes())
            if point.identity != identity:
                return None
            groups: dict[str, list[np.ndarray]] = {}
            for name in archive.files:
                if name != _POINT:
                    groups.setdefault(name.partition(".")[0], []).append(archive[name])
            return point, groups
    except (
        OSError,
        ValueError,
        KeyError,
        EOFError,
        AttributeError,  # a lone array, which is no archive
        zipfile.BadZipFile,
        MalformedDocument,
    ) as error:
        raise TuningError(
            f"{path} is no checkpoint that could be gone on from ({error}): remove it, and the fine-tuning begins anew"
        ) from error
