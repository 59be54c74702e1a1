"""`drift.json` of a store of reduced precision: what its forward pass gives against float32, on the user's own images.

Evidence for a person, made by the first builder; nothing rests on it, so one that is damaged counts as none.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from bottleneck.errors import StoreError
from bottleneck.schema import Drift
from bottleneck.schema.strict_json import MalformedDocument, loads, validate
from bottleneck.store.locks import committing
from bottleneck.store.record import read_file, seal, unseal
from bottleneck.system.durable import publish

DRIFT = "drift.json"

_MOST_BYTES = 1 << 12


def read_drift(folder: Path) -> Drift | None:
    """What the store in `folder` says; None where it says nothing that can be trusted."""
    with contextlib.suppress(OSError, StoreError, MalformedDocument):
        document = loads(read_file(folder, DRIFT, None, most=_MOST_BYTES), most_bytes=_MOST_BYTES)
        if isinstance(document, dict):
            unseal(document)
        return validate(Drift, document)
    return None


def publish_drift(folder: Path, drift: Drift) -> None:
    """Write it, unless there is one. Raises OSError."""
    with committing(folder):
        publish(folder / DRIFT, seal(drift), replace=read_drift(folder) is None)
