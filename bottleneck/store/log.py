"""Write a small JSON record of each run. Nothing reads it."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_log(folder: Path, document: Mapping[str, Any]) -> None:
    """Write ``<utc>-<pid>-<digits>.json`` in `folder`, or nothing where that fails.

    Parameters
    ----------
    folder : Path
        The store's ``log/``; not made where it is gone.
    document : mapping
        JSON-able.
    """
    now = datetime.datetime.now(datetime.UTC)
    path = folder / f"{now:%Y%m%dT%H%M%SZ}-{os.getpid()}-{secrets.token_hex(3)}.json"
    text = json.dumps({"format": 1, "ended_at": now.isoformat(timespec="seconds"), **document}, indent=1)
    try:
        with path.open("x", encoding="ascii") as file:
            file.write(text + "\n")
    except OSError:
        # Half a log says less than none.
        with contextlib.suppress(OSError):
            path.unlink()
