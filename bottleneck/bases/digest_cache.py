"""Known digests, so that an idle run never builds the base.

One small JSON file a request in the cache, under a key of everything that decides the answer: the request, the bytes of
the files it names, the versions of this package, of Keras, of TensorFlow and of what Keras loads classes from, and of
the digest's own rules. A `module:function` and a model object are never remembered: their code may have changed. A
damaged file is a miss.
"""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bottleneck import __version__
from bottleneck.bases import custom, precision, specs
from bottleneck.bases.calibrate import CALIBRATION_VERSION
from bottleneck.bases.digest import CODE_VERSION, DIGEST_VERSION
from bottleneck.bases.weights import parse_weights
from bottleneck.errors import BottleneckError
from bottleneck.schema import BaseRequest, Cache, StoreSpec, canonical_json
from bottleneck.system.durable import publish, sha256_of

_FORMAT = 1

#: What a `.keras` file may name classes of, in safe mode too.
_PACKAGES = ("keras", "tensorflow", "keras_hub", "keras_cv", "keras_nlp")


def recall_digests(request: BaseRequest, cache: Cache) -> StoreSpec | None:
    """Return what was kept for this request, without importing Keras.

    Parameters
    ----------
    request : BaseRequest
    cache : Cache

    Returns
    -------
    StoreSpec or None

    Examples
    --------
    >>> import tempfile, pathlib
    >>> recall_digests(BaseRequest(base="vgg16"), Cache(pathlib.Path(tempfile.mkdtemp()))) is None
    True
    """
    key = _key(request)
    if key is None:
        return None
    try:
        document = json.loads(_path(key, cache).read_bytes())
        if document["format"] != _FORMAT or document["key"] != key:
            return None
        spec = StoreSpec.model_validate(document["spec"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    # A bit flip that still parses must not lead to another store.
    return spec if document.get("check") == _check(key, spec) else None


def remember_digests(request: BaseRequest, spec: StoreSpec, cache: Cache) -> None:
    """Keep what `request` turned out to be, if the cache allows."""
    key = _key(request)
    if key is None:
        return
    document = {
        "format": _FORMAT,
        "key": key,
        "request": request.model_dump(mode="json"),
        "spec": spec.model_dump(mode="json"),
        "check": _check(key, spec),
    }
    try:
        cache.bases.mkdir(parents=True, exist_ok=True)
        publish(_path(key, cache), json.dumps(document, indent=1).encode(), replace=True)
    except OSError:
        return


def _path(key: str, cache: Cache) -> Path:
    return cache.bases / f"{key[:32]}.json"


def _check(key: str, spec: StoreSpec) -> str:
    return hashlib.sha256(key.encode() + spec.canonical()).hexdigest()


def _key(request: BaseRequest) -> str | None:
    if request.base.lower() not in specs() and not custom.is_file(request.base):
        return None
    # The batch shape changes how the base is run, not what it is.
    asked = request.model_dump(mode="json", exclude={"batch"})
    try:
        source = parse_weights(request.weights)
        if custom.is_file(request.base):
            asked["base"] = [custom.label(request.base), sha256_of(Path(request.base))]
        if source.path is not None:
            asked["weights"] = sha256_of(source.path)
    except (OSError, BottleneckError):
        return None
    if request.precision == "auto":
        asked["machine"] = precision.machine()
    # What the catalog says of a base may change between versions of this package: an alias, a default cut.
    row = specs().get(request.base.lower())
    rules = [_FORMAT, DIGEST_VERSION, CODE_VERSION, CALIBRATION_VERSION, repr(row)]
    versions = [__version__, *map(_version, _PACKAGES)]
    return hashlib.sha256(canonical_json([asked, rules, versions])).hexdigest()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
