"""Read and write a store's JSON files: recipe, drift and logs."""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from bottleneck.errors import NewerFormat, StoreError
from bottleneck.schema import BaseRequest, Cache, Drift, Frozen, StoreSpec
from bottleneck.schema.strict_json import MalformedDocument, loads, validate
from bottleneck.store.locks import committing
from bottleneck.store.record import read_file, seal, unseal
from bottleneck.system.durable import publish

_MOST_BYTES = 1 << 20


class StoreHeader(Frozen):
    """What `recipe.json` says.

    The batch shape is fixed by the store's first plan: bits depend on it.

    `request` is how the first builder asked for the base, so that rows can be computed again by the store alone; no
    part of any identity.
    """

    format: Literal[1] = 1
    spec: StoreSpec
    batch: int | None = Field(default=None, ge=1)
    request: BaseRequest | None = None


def find_store(cache: Cache, spec: StoreSpec) -> tuple[Path, StoreHeader]:
    """Find the folder and header of `spec`'s store, there or not.

    The hex digits of the recipe decide. The names before them are for people: what the first builder called base and
    cut.
    """
    for folder in sorted(cache.stores.glob(f"*{spec.ending}")):
        header = read_header(folder)
        if header is None:
            continue
        check_identity(str(folder), header, spec, ": move the folder away")
        return folder, header
    return cache.stores / spec.folder, StoreHeader(spec=spec)


def check_identity(name: str, header: StoreHeader, spec: StoreSpec, advice: str = "") -> None:
    """Check that the store `name` holds rows of `spec`. Raises `StoreError`."""
    if header.spec.identity != spec.identity or header.spec.shape != spec.shape:
        raise StoreError(
            f"{name} is of recipe {header.spec.identity[:16]} with rows of {header.spec.shape}; "
            f"{spec.identity[:16]} with rows of {spec.shape} was expected{advice}"
        )


def read_header(folder: Path) -> StoreHeader | None:
    """Read the header in `folder`; None where there is none yet.

    Raises
    ------
    StoreError
        Newer than this version, or damaged.
    """
    try:
        return parse_header(read_file(folder, "recipe.json", None, most=_MOST_BYTES), str(folder))
    except (FileNotFoundError, NotADirectoryError):
        return None


def parse_header(data: bytes, where: str) -> StoreHeader:
    """Parse the `recipe.json` that lies in `where`. Raises as `read_header`."""
    try:
        document = loads(data, most_bytes=_MOST_BYTES)
        version = document.get("format") if isinstance(document, dict) else None
        if isinstance(version, int) and version > 1:
            raise NewerFormat(
                f"{where} has format {version}; this version of bottleneck-features reads 1: "
                "upgrade it (pip install -U bottleneck-features). Nothing was touched"
            )
        if isinstance(document, dict) and "self" in document:  # early ones have none
            unseal(document)
        return validate(StoreHeader, document)
    except MalformedDocument as error:
        raise StoreError(
            f"{where}/recipe.json is damaged ({error}): remove that file alone, and the next `extract` makes it anew"
        ) from error


def open_for_building(cache: Cache, folder: Path) -> None:
    """Make a store's folders, or refuse at once, before anything is computed.

    Raises
    ------
    StoreError
        The cache cannot be written to.
    """
    try:
        for part in ("shards", "plans", "locks", "log"):
            (folder / part).mkdir(parents=True, exist_ok=True)
            if not os.access(folder / part, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise _unwritable(cache, folder, error) from error


def _unwritable(cache: Cache, folder: Path, error: OSError) -> StoreError:
    return StoreError(
        f"the cache {cache.root} cannot be written to ({folder}: {error.strerror or error}): "
        "choose another with --cache DIR or BOTTLENECK_CACHE"
    )


def begin_store(
    cache: Cache, spec: StoreSpec, batch: int, request: BaseRequest | None = None
) -> tuple[Path, StoreHeader]:
    """Make the store's folder and header, unless somebody has begun it.

    Raises
    ------
    StoreError
        The cache cannot be written to: named at once, before anything is computed.
    """
    folder, _ = find_store(cache, spec)
    try:
        (folder / "shards").mkdir(parents=True, exist_ok=True)
        header = StoreHeader(spec=spec, batch=batch, request=request)
        with committing(folder):
            publish(folder / "recipe.json", seal(header))
    except OSError as error:
        raise _unwritable(cache, folder, error) from error
    return folder, read_header(folder) or header


DRIFT = "drift.json"
_MOST_DRIFT_BYTES = 1 << 12


def read_drift(folder: Path) -> Drift | None:
    """Read the drift in `folder`; None where nothing can be trusted.

    It compares reduced precision with float32 on the user's own images, for a person: nothing rests on it.
    """
    with contextlib.suppress(OSError, StoreError, MalformedDocument):
        document = loads(read_file(folder, DRIFT, None, most=_MOST_DRIFT_BYTES), most_bytes=_MOST_DRIFT_BYTES)
        if isinstance(document, dict):
            unseal(document)
        return validate(Drift, document)
    return None


def publish_drift(folder: Path, drift: Drift) -> None:
    """Write it, unless there is one. Raises OSError."""
    with committing(folder):
        publish(folder / DRIFT, seal(drift), replace=read_drift(folder) is None)


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
        # Half a log is worse than none.
        with contextlib.suppress(OSError):
            path.unlink()
