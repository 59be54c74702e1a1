"""One line for each pluggable thing.

Nothing is imported until it is asked for. Adding a base, head, source, exporter or engine: write its file, add its line
here, and the contract suites cover it.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any

from bottleneck.errors import UnknownName

#: Asked in this order whether they claim a location. No two claim the same one; a folder is the most frequent.
SOURCES: Mapping[str, str] = MappingProxyType(
    {
        "folder": "bottleneck.sources.folder:FolderSource",
        "table": "bottleneck.sources.table:TableSource",
        "zip": "bottleneck.sources.archive:ZipSource",
        "tar": "bottleneck.sources.archive:TarSource",
    }
)

#: The same for URLs, in this order; the folder claims every URL and comes last.
REMOTE_SOURCES: Mapping[str, str] = MappingProxyType(
    {
        "remote table": "bottleneck.sources.fetched:RemoteTable",
        "remote archive": "bottleneck.sources.fetched:RemoteArchive",
        "remote folder": "bottleneck.sources.remote:RemoteFolder",
    }
)

#: Families of bases; each names its bases by `specs()`.
BASES: Mapping[str, str] = MappingProxyType(
    {
        "applications": "bottleneck.bases.applications",
        "squeezenet": "bottleneck.bases.squeezenet",
        "vggface": "bottleneck.bases.vggface",
        "inception_v4": "bottleneck.bases.inception_v4",
    }
)

HEADS: Mapping[str, str] = MappingProxyType(
    {
        "logistic": "bottleneck.heads.logistic:LogisticHead",
        "dense": "bottleneck.heads.dense:DenseHead",
    }
)

#: Kinds of artefact, in the order in which they are made and shown.
EXPORTERS: Mapping[str, str] = MappingProxyType(
    {
        "keras": "bottleneck.exports.keras_archive:KerasFile",
        "saved_model": "bottleneck.exports.saved_model:SavedModel",
        "litert": "bottleneck.exports.litert:Float32",
        "litert-float16": "bottleneck.exports.litert:Float16",
        "litert-dynamic": "bottleneck.exports.litert:Dynamic",
        "litert-int16x8": "bottleneck.exports.litert:Int16x8",
        "litert-int8": "bottleneck.exports.litert:Int8",
        "onnx": "bottleneck.exports.onnx_file:OnnxFile",
        "openvino": "bottleneck.exports.openvino_file:OpenVinoFile",
    }
)

#: Where the workers of an extraction are.
ENGINES: Mapping[str, str] = MappingProxyType(
    {
        "local": "bottleneck.extraction.engines.local:LocalEngine",
        "dask": "bottleneck.extraction.engines.dask_engine:DaskEngine",
        "ray": "bottleneck.extraction.engines.ray_engine:RayEngine",
    }
)

#: Who reads the files of a scan, where the workers of an extraction are on other machines.
READERS: Mapping[str, str] = MappingProxyType(
    {
        "dask": "bottleneck.extraction.engines.dask_engine:DaskReaders",
        "ray": "bottleneck.extraction.engines.ray_engine:RayReaders",
    }
)


def load(kind: str, table: Mapping[str, str], name: str) -> Any:
    """Import the thing called `name` in `table`. Raises `UnknownName`.

    Examples
    --------
    >>> load("head", {"counter": "collections:Counter"}, "counter").__name__
    'Counter'
    """
    if name not in table:
        raise UnknownName(kind, name, table)
    return resolve(table[name])


def resolve(reference: str) -> Any:
    """Import ``module`` or ``module:attribute``."""
    module, _, attribute = reference.partition(":")
    value: Any = import_module(module)
    return getattr(value, attribute) if attribute else value
