"""Compare this machine with the one that began a store.

The canary is what eight fixed pictures give, thinned; the records say what decoded the files.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from bottleneck.errors import ChangedBase, ForeignEnvironment, StoreError
from bottleneck.schema import StoreSpec
from bottleneck.schema.strict_json import MalformedDocument
from bottleneck.store.locks import committing
from bottleneck.store.record import RECORD_NAME, read_record
from bottleneck.system.durable import publish

CANARY = "canary.f32"
CANARY_IMAGES = 8

#: Two machines whose canaries differ by more of their spread do not compute the same features.
_TOLERANCE = 1e-4

#: The same of reduced precision. bfloat16 throughout was 0.24 (SqueezeNet), 0.35 (MobileNetV2) and 0.41 (InceptionV3)
#: away from float32 at the worst value, and two machines' bfloat16 are no further from each other than that; channels
#: in the wrong order, or pixels not preprocessed, are 5 and more away.
_REDUCED_TOLERANCE = 0.5

#: Values of one picture: large maps are sampled evenly, or a store would open with tens of megabytes of canary.
_VALUES = 4096

#: In records without a known canary: their rows were repaired when no record of theirs was left.
NO_CANARY = "0" * 64


def canary_tolerance(spec: StoreSpec) -> float:
    """Give the share of their spread by which canaries may differ."""
    return _TOLERANCE if spec.recipe.precision == "float32" else _REDUCED_TOLERANCE


def _step(width: int) -> int:
    return max(1, -(-width // _VALUES))


def canary_values(spec: StoreSpec) -> int:
    """Count the values of `canary.f32` for such rows."""
    width = int(np.prod(spec.shape, dtype=np.int64))
    return CANARY_IMAGES * -(-width // _step(width))


def thin(rows: np.ndarray) -> np.ndarray:
    """Thin the rows (n, *shape) of pictures to (n, values).

    Examples
    --------
    >>> thin(np.zeros((8, 7, 7, 512), np.float32)).shape
    (8, 3584)
    """
    flat = rows.reshape(len(rows), -1)
    return np.ascontiguousarray(flat[:, :: _step(flat.shape[1])])


def canary_distance(first: np.ndarray, other: np.ndarray) -> float:
    """Measure two canaries' largest difference, relative to the spread between pictures.

    Examples
    --------
    >>> values = np.arange(16, dtype=np.float32)
    >>> canary_distance(values, values)
    0.0
    """
    spread = spread_of(first.reshape(CANARY_IMAGES, -1)) or 1.0
    return float(np.abs(first.ravel() - other.ravel()).max()) / spread


def spread_of(rows: np.ndarray) -> float:
    """Measure how far the rows (n, values) of several pictures lie apart.

    The root of their mean variance, of finite values.

    Examples
    --------
    >>> spread_of(np.array([[0.0, 1.0], [2.0, 1.0]]))
    0.7071067811865476
    """
    finite = rows[:, np.isfinite(rows).all(axis=0)]
    return float(np.sqrt(finite.var(axis=0).mean())) if finite.size else 0.0


def compare_canary(folder: Path, rows: np.ndarray, spec: StoreSpec) -> None:
    """Publish `rows` (8, values) as the canary, or compare them with it.

    Raises
    ------
    ForeignEnvironment
        Another machine, or other versions, began the store, and compute other features; or its canary is damaged.
    """
    path = folder / CANARY
    with committing(folder):
        is_first = publish(path, rows.astype("<f4").tobytes())
    if is_first:
        return
    first = _read(path, rows)
    largest, tolerance = canary_distance(first, rows), canary_tolerance(spec)
    if not largest <= tolerance:
        raise ForeignEnvironment(
            f"this machine computes other features for {spec.base} than the ones in {folder}: the canary images "
            f"differ by {largest:.2g} of their spread ({tolerance:g} is rounding). Mixing them would not be "
            "one set of features: use another --cache, or the machine and versions that began this store"
        )


def prove_unchanged(folder: Path, rows: np.ndarray, spec: StoreSpec, recorded: Collection[str]) -> None:
    """Compare the canary of a base that is code with its store's.

    Parameters
    ----------
    folder : Path
    rows : numpy.ndarray
        What the base gives now.
    spec : StoreSpec
    recorded : collection of str
        Hashes of the canaries in the records of this very numeric environment: there the bits are the same.

    Raises
    ------
    ChangedBase
        It computes other features now than in this very environment before, though its digest is the same.
    ForeignEnvironment
        It computes other features here, where none of the rows was made; or the store's canary is damaged.
    """
    if hash_of(rows) in recorded:
        return
    path = folder / CANARY
    try:
        first = _read(path, rows)
    except FileNotFoundError:
        if not recorded:
            return  # rows of another machine without a canary: as with any base, the next `extract` writes one
        apart = "differ"
    else:
        largest, tolerance = canary_distance(first, rows), canary_tolerance(spec)
        if largest <= tolerance:
            return
        apart = f"differ by {largest:.2g} of their spread ({tolerance:g} is rounding)"
    if not recorded:
        raise ForeignEnvironment(
            f"this machine computes other features for {spec.base} than the ones in {folder}: the canary images "
            f"{apart}. The base is code: either what it depends on changed where no digest can see it, or the machine "
            "and its versions make the difference. Its rows are not served: use another --cache, or the machine and "
            "versions that began this store"
        )
    raise ChangedBase(
        f"{spec.base} computes other features now than the rows in {folder} were made with: the canary images {apart}, "
        "though code and weights look the same. Something that it depends on changed where no digest can see it (a "
        "file that it reads, a compiled library, a variable of the environment). Its rows are not served: put back "
        "what changed; or make the change visible (a constant in its code), and it gets a store of its own; or use "
        "another --cache"
    )


def hash_of(rows: np.ndarray) -> str:
    """Hash the canary `rows` as records do."""
    return hashlib.sha256(rows.tobytes()).hexdigest()


def _read(path: Path, rows: np.ndarray) -> np.ndarray:
    first = np.frombuffer(path.read_bytes(), "<f4")
    if first.size != rows.size:
        raise ForeignEnvironment(
            f"{path} holds {first.size} values where {rows.size} were expected: it is damaged; remove that one file"
        )
    return first


#: The key of the decoder in an environment. Records of early versions lack it: nothing is known of them.
DECODER = "decoder"


def compare_decoder(folder: Path, environment: Mapping[str, str]) -> None:
    """Compare the decoder of `environment` with the store's records.

    One record that names a decoder is enough: whoever added one was compared with the others.

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
        # A file that is no record, or is gone, says nothing; opening the store reports what is wrong with it.
        with contextlib.suppress(OSError, MalformedDocument, StoreError):
            decoder = read_record(shards, name).environment.get(DECODER)
            if decoder is not None and decoder.partition("-")[0] == version:
                return decoder
    return None
