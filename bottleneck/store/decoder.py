"""Whether the files of a store were decoded as this machine decodes them: each record says by what it was done."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from bottleneck.errors import ForeignEnvironment, StoreError
from bottleneck.schema.strict_json import MalformedDocument
from bottleneck.store.record import RECORD_NAME, read_record

#: Where an environment says what decodes files. Records of early versions do not say it: nothing is known of them.
DECODER = "decoder"


def compare_decoder(folder: Path, environment: Mapping[str, str]) -> None:
    """Hold what decodes files in `environment` to what the records of the store in `folder` say.

    One record that says it is enough: whoever added one before was held to the others.

    Raises
    ------
    ForeignEnvironment
        The store's files were decoded by other libraries, which give other pixels.
    """
    mine = environment.get(DECODER)
    if mine is None:
        return
    their = _recorded(folder / "shards", mine.partition("-")[0])
    if their is not None and their != mine:
        raise ForeignEnvironment(
            f"this machine decodes image files to other pixels than the rows in {folder} were computed from: the "
            f"built-in sample files give {mine} here and {their} there. Mixing them would not be one set of features: "
            "use another --cache, or the version of TensorFlow that began this store"
        )


def _recorded(shards: Path, version: str) -> str | None:
    try:
        names = sorted(filter(RECORD_NAME.fullmatch, os.listdir(shards)))
    except FileNotFoundError:
        return None
    for name in names:
        # What is no record, or gone by now, says nothing; whoever opens the store says what is wrong with it.
        with contextlib.suppress(OSError, MalformedDocument, StoreError):
            found = read_record(shards, name).environment.get(DECODER)
            if found is not None and found.partition("-")[0] == version:
                return found
    return None
