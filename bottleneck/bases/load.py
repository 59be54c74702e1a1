"""Build, weight, cut and identify the base that a request names.

One entry for every kind of base: a name of the catalog, a `.keras` file, a `module:function`, a model object.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from bottleneck.bases import base_named, custom, family_of, precision, preprocess
from bottleneck.bases import cut as cuts
from bottleneck.bases.calibrate import CALIBRATION_VERSION, calibrate, seeded
from bottleneck.bases.digest import digest
from bottleneck.bases.weights import WeightSource, check_finite, load_file, parse_weights
from bottleneck.errors import BaseError, UsageError
from bottleneck.schema import (
    BaseRequest,
    BaseSpec,
    Cache,
    CutPoint,
    Pixels,
    Pooling,
    Precision,
    Preprocessing,
    Recipe,
    StoreSpec,
)


@dataclass(frozen=True, eq=False)
class LoadedBase:
    """A base, ready to run.

    Attributes
    ----------
    name : str
        Catalog name, file stem, or module and function.
    cut : str
        Path of the layer at the cut.
    model : keras.Model
        Preprocessed (size, size, channels) image to the cut's output, not pooled; trainable as it was built.
    pooling : {"none", "avg", "max"}
    preprocessing : Preprocessing
    size : int
    blocks : str
        Block pattern of the catalog; empty for a user's own model.
    spec : StoreSpec
        Identity and shape of the rows that it makes.
    """

    name: str
    cut: str
    model: Any
    pooling: Pooling
    preprocessing: Preprocessing
    size: int
    blocks: str
    spec: StoreSpec

    @cached_property
    def features_model(self) -> Any:
        """Preprocessing, base and pooling: pixels in 0..255 to rows.

        Call it with ``training=False``: it shares `model`'s layers, since a frozen copy of a large base costs
        its memory again.
        """
        return features_of([self])

    def digest_now(self) -> str:
        """Compute the digest of `model` as it is now."""
        return digest(self.model)


def features_of(bases: Sequence[LoadedBase]) -> Any:
    """Join the `features_model` of several cuts; shared layers run once."""
    import keras

    first = bases[0]
    image = keras.Input((first.size, first.size, 3), name="image")
    network = first.model
    if len(bases) > 1:
        network = keras.Model(
            first.model.inputs, [base.model.outputs[0] for base in bases], name=first.model.name
        )
    maps = keras.tree.flatten(network(preprocess.apply(image, first.preprocessing)))
    rows = [cuts.pool(part, base.pooling) for part, base in zip(maps, bases, strict=True)]
    return keras.Model(image, rows if len(rows) > 1 else rows[0], name=f"{network.name}_features")


def load_base(request: BaseRequest, cache: Cache) -> LoadedBase:
    """Load the base of `request`; raises as `load_cuts`."""
    return load_cuts([request], cache)[0]


def load_cuts(requests: Sequence[BaseRequest], cache: Cache) -> tuple[LoadedBase, ...]:
    """Load one base, cut and identified for each request.

    Parameters
    ----------
    requests : sequence of BaseRequest
        They differ in nothing but the cut.
    cache : Cache
        Where fetched weights are kept.

    Returns
    -------
    tuple of LoadedBase
        They share layers.

    Raises
    ------
    UnknownName
        No such base or layer.
    UsageError, BaseError
        Anything else that cannot be; the message says what to do.
    """
    _need_tensorflow()
    request = requests[0]
    source = parse_weights(request.weights)
    if not custom.is_file(request.base) and not custom.is_function(request.base):
        return _from_catalog(requests, base_named(request.base), source, cache)
    preprocessing = custom.need_preprocessing(request.preprocessing, request.base)
    if source.kind == "imagenet":
        raise UsageError(
            f"--weights imagenet: {request.base!r} is no base of the catalog; leave --weights out"
        )
    if custom.is_file(request.base):
        if source.kind == "random":
            raise UsageError(
                f"--weights {request.weights}: {request.base!r} brings its own weights; leave --weights out"
            )
        model = custom.load_archive(Path(request.base))
    elif source.kind == "random":
        with seeded(source.seed):
            model = custom.call_function(request.base)
            model, _ = custom.fit(model, request.size, request.base)
    else:
        model = custom.call_function(request.base)
    model, size = custom.fit(model, request.size, request.base)
    preprocess.check_channels(preprocessing, model.input_shape[-1], request.base)
    if source.path is not None:
        load_file(model, source.path, top_may_lack=False)
    network = _Network(model, custom.label(request.base), preprocessing, size, source)
    return _finish(network, requests, [CutPoint(one.cut or cuts.OUTPUT) for one in requests])


def load_model(model: Any, requests: Sequence[BaseRequest]) -> tuple[LoadedBase, ...]:
    """Load a model object at each cut; `base` only names it.

    Parameters
    ----------
    model : keras.Model
        Functional, Sequential, or subclassed (at its output only). Its layers are shared, not copied.
    requests : sequence of BaseRequest
        They differ in nothing but the cut. `preprocessing` is required; `weights` must be None.
    """
    import keras

    _need_tensorflow()
    request = requests[0]
    if not isinstance(model, keras.Model):
        raise UsageError(f"base is a {type(model).__qualname__}; expected a keras.Model")
    if request.weights is not None:
        raise UsageError(f"--weights {request.weights!r}: a model object has its weights already")
    preprocessing = custom.need_preprocessing(request.preprocessing, request.base)
    fitted, size = custom.fit(model, request.size, request.base)
    preprocess.check_channels(preprocessing, fitted.input_shape[-1], request.base)
    network = _Network(fitted, request.base, preprocessing, size, WeightSource("own"))
    return _finish(network, requests, [CutPoint(one.cut or cuts.OUTPUT) for one in requests])


def _need_tensorflow() -> None:
    import keras

    backend, layout = keras.backend.backend(), keras.config.image_data_format()
    if backend != "tensorflow":
        raise BaseError(f"Keras runs on {backend} here; set KERAS_BACKEND=tensorflow before it is imported")
    if layout != "channels_last":
        raise BaseError(
            f"Keras has image_data_format {layout}; set it to channels_last (~/.keras/keras.json)"
        )


@dataclass(frozen=True, eq=False)
class _Network:
    model: Any
    name: str
    preprocessing: Preprocessing
    size: int
    source: WeightSource
    aliases: Mapping[str, CutPoint] = field(default_factory=dict)
    blocks: str = ""


def _from_catalog(
    requests: Sequence[BaseRequest], spec: BaseSpec, source: WeightSource, cache: Cache
) -> tuple[LoadedBase, ...]:
    request = requests[0]
    size = request.size or spec.size
    preprocessing = request.preprocessing or Preprocessing.parse(spec.preprocessing)
    preprocess.check_channels(preprocessing, 3, spec.name)
    lower: Any = None  # the network below the top, once a cut has made us look at its layers
    points: list[CutPoint] = []
    for name in (one.cut or spec.cut for one in requests):
        point = spec.cuts.get(name)
        if point is None:
            # Not an alias: a layer below the top, else one in it, else an error that lists both.
            lower = lower or _built(spec, source, cache, top=False, size=size)
            point = CutPoint(name)
            if not _has(lower, name):
                if any(cut.top for cut in spec.cuts.values()):
                    whole: Any = family_of(spec.name).build(spec, top=True, size=spec.size)
                    if not _has(whole, name):
                        cuts.cut_at(whole, name, aliases=spec.cuts)
                    del whole
                point = CutPoint(name, top=True)
        points.append(point)
    top = any(point.top for point in points)
    model = lower if lower is not None and not top else _built(spec, source, cache, top=top, size=size)
    network = _Network(model, spec.name, preprocessing, size, source, spec.cuts, spec.blocks)
    return _finish(network, requests, points)


def _has(model: Any, name: str) -> bool:
    first = name.partition("/")[0]
    return name == cuts.OUTPUT or any(operation.name == first for operation in model.operations)


def _built(spec: BaseSpec, source: WeightSource, cache: Cache, *, top: bool, size: int) -> Any:
    family: Any = family_of(spec.name)
    if source.kind in ("own", "imagenet"):
        return family.pretrained(spec, top=top, size=size, cache=cache)
    if source.kind == "random":
        with seeded(source.seed):
            return family.build(spec, top=top, size=size)
    model = family.build(spec, top=top, size=size)
    assert source.path is not None
    load_file(model, source.path, top_may_lack=not top)
    return model


def _finish(
    network: _Network, requests: Sequence[BaseRequest], points: Sequence[CutPoint]
) -> tuple[LoadedBase, ...]:
    models = [cuts.cut_at(network.model, point.layer, aliases=network.aliases) for point in points]
    for model, _ in models:
        check_finite(model, f"base {network.name!r}")
    # All of them before the first is calibrated, which changes the weights that they share.
    identities = [digest(model) for model, _ in models]
    if network.source.kind == "random":
        done: set[int] = set()
        for number, (model, _) in enumerate(models):
            # Calibrated bits differ between machines; what they come from does not.
            calibrate(model, network.preprocessing, network.size, done)
            origin = f"calibrated {CALIBRATION_VERSION}\n{identities[number]}"
            identities[number] = hashlib.sha256(origin.encode()).hexdigest()
    resolved = precision.here(requests[0].precision)
    bases = [
        _cut(network, request, point, model, path, identity, resolved)
        for request, point, (model, path), identity in zip(requests, points, models, identities, strict=True)
    ]
    if len({base.spec.identity for base in bases}) < len(bases):
        raise UsageError(
            f"--cut {','.join(str(request.cut) for request in requests)}: two of these are one place "
            f"({', '.join(base.cut for base in bases)}); name each once"
        )
    return tuple(bases)


def _cut(
    network: _Network,
    request: BaseRequest,
    point: CutPoint,
    model: Any,
    path: str,
    identity: str,
    resolved: Precision,
) -> LoadedBase:
    shape = model.output_shape
    if not isinstance(shape, tuple):
        raise BaseError(f"base {network.name!r}: the cut {path!r} has several outputs; cut at one layer")
    pooling = cuts.resolve_pooling(request.pooling, point.pooling, shape)
    recipe = Recipe(
        base_digest=identity,
        pooling=pooling,
        pixels=Pixels(height=network.size, width=network.size, resize=request.resize),
        preprocessing=network.preprocessing,
        precision=resolved,
        dtype=request.dtype,
    )
    rows = cuts.row_shape(shape, pooling, f"base {network.name!r} cut at {path!r}")
    return LoadedBase(
        name=network.name,
        cut=path,
        model=model,
        pooling=pooling,
        preprocessing=network.preprocessing,
        size=network.size,
        blocks=network.blocks,
        spec=StoreSpec(base=network.name, cut=path, shape=rows, recipe=recipe),
    )
