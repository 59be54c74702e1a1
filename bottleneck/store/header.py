"""A store's folder and its `recipe.json`: what the rows are, and the batch shape that all builders keep to."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from bottleneck.errors import NewerFormat, StoreError
from bottleneck.files import publish
from bottleneck.schema import Cache, Frozen, StoreSpec
from bottleneck.store.record import read_file
from bottleneck.strict import MalformedDocument, loads, validate


class Header(Frozen):
    """What `recipe.json` says. The batch shape is fixed by the store's first plan: bits depend on it."""

    format: Literal[1] = 1
    spec: StoreSpec
    batch: int | None = Field(default=None, ge=1)


def find_store(cache: Cache, spec: StoreSpec) -> tuple[Path, Header]:
    """The folder of `spec`'s store, there or not, and its header.

    The hex digits of the recipe decide; the names before them are for people, and are whatever the first builder
    called base and cut.
    """
    ending = f"-{spec.recipe.fingerprint[:12]}"
    for folder in sorted(cache.stores.glob(f"*{ending}")):
        header = read_header(folder)
        if header is None:
            continue
        if header.spec.recipe != spec.recipe or header.spec.shape != spec.shape:
            raise StoreError(
                f"{folder} is of recipe {header.spec.recipe.fingerprint[:16]} with rows of {header.spec.shape}; "
                f"{spec.recipe.fingerprint[:16]} with rows of {spec.shape} was expected: move the folder away"
            )
        return folder, header
    return cache.stores / spec.folder, Header(spec=spec)


def read_header(folder: Path) -> Header | None:
    """The header in `folder`, None where there is none yet.

    Raises
    ------
    StoreError
        Newer than this version, or damaged.
    """
    try:
        document = loads(read_file(folder, "recipe.json", None), most_bytes=1 << 20)
        version = document.get("format") if isinstance(document, dict) else None
        if isinstance(version, int) and version > 1:
            raise NewerFormat(
                f"{folder} has format {version}; this version of bottleneck-features reads 1: "
                "upgrade it (pip install -U bottleneck-features). Nothing was touched"
            )
        return validate(Header, document)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except MalformedDocument as error:
        raise StoreError(
            f"{folder}/recipe.json is damaged ({error}): remove that file alone, and the next `extract` makes it anew"
        ) from error


def found(cache: Cache, spec: StoreSpec, batch: int) -> tuple[Path, Header]:
    """The store's folder, made if it was not there, and the header that counts: the first builder's.

    Raises
    ------
    StoreError
        The cache cannot be written to: named at once, before anything is computed.
    """
    folder, _ = find_store(cache, spec)
    try:
        (folder / "shards").mkdir(parents=True, exist_ok=True)
        mine = Header(spec=spec, batch=batch)
        publish(folder / "recipe.json", mine.model_dump_json(indent=1).encode("utf-8") + b"\n")
    except OSError as error:
        raise StoreError(
            f"the cache {cache.root} cannot be written to ({error.strerror or error}): "
            "choose another with --cache DIR or BOTTLENECK_CACHE"
        ) from error
    return folder, read_header(folder) or mine
