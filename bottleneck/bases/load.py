"""From what the user asked to the frozen base: built, weighted, cut, and named by a digest.

One entry for every kind of base: a name of the catalog, a `.keras` file, a `module:function`, a model object.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bottleneck.bases import custom, family_of, precision, preprocess, specs
from bottleneck.bases import cut as cuts
from bottleneck.bases.calibrate import CALIBRATION_VERSION, calibrate, seeded
from bottleneck.bases.digest import digest
from bottleneck.bases.weights import WeightSource, check_finite, load_file, parse_weights
from bottleneck.errors import BaseError, UnknownName, UsageError
from bottleneck.schema import (
    BaseRequest,
    BaseSpec,
    Cache,
    CutPoint,
    Pixels,
    Pooling,
    Preprocessing,
    Recipe,
    StoreSpec,
)


@dataclass(frozen=True, eq=False)
class LoadedBase:
    """A base, ready to be run.

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
        """Pixels (n, size, size, 3) in 0..255 to rows (n, *spec.shape): preprocessing, base, pooling.

        To be called with ``training=False``: it shares `model`'s layers, since a frozen copy of a large base costs
        its memory again.
        """
        import keras

        image = keras.Input((self.size, self.size, 3), name="image")
        maps = self.model(preprocess.apply(image, self.preprocessing))
        return keras.Model(image, cuts.pool(maps, self.pooling), name=f"{self.model.name}_features")

    def digest_now(self) -> str:
        """The digest of `model` as it is now: equal before and after anything that should not change it."""
        return digest(self.model)


def load(request: BaseRequest, cache: Cache) -> LoadedBase:
    """Build, weight, cut and identify the base of `request`.

    Parameters
    ----------
    request : BaseRequest
    cache : Cache
        Where fetched weights are kept.

    Returns
    -------
    LoadedBase

    Raises
    ------
    UnknownName
        No such base or layer.
    UsageError, BaseError
        Anything else that cannot be; the message says what to do.
    """
    _need_tensorflow()
    source = parse_weights(request.weights)
    spec = specs().get(request.base.lower())
    if spec is not None:
        return _from_catalog(request, spec, source, cache)
    if not custom.is_file(request.base) and not custom.is_function(request.base):
        raise UnknownName("base", request.base, specs(), "or give FILE.keras or module:function")
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
    return _finish(
        model,
        request,
        custom.label(request.base),
        CutPoint(request.cut or cuts.OUTPUT),
        preprocessing,
        size,
        source,
    )


def load_model(model: Any, request: BaseRequest) -> LoadedBase:
    """The base of a model object; `request.base` is what it is called.

    Parameters
    ----------
    model : keras.Model
        Functional, Sequential, or subclassed (at its output only). Its layers are shared, not copied.
    request : BaseRequest
        `preprocessing` is required; `weights` must be None.
    """
    import keras

    _need_tensorflow()
    if not isinstance(model, keras.Model):
        raise UsageError(f"base is a {type(model).__qualname__}; expected a keras.Model")
    if request.weights is not None:
        raise UsageError(f"--weights {request.weights!r}: a model object has its weights already")
    preprocessing = custom.need_preprocessing(request.preprocessing, request.base)
    fitted, size = custom.fit(model, request.size, request.base)
    preprocess.check_channels(preprocessing, fitted.input_shape[-1], request.base)
    point = CutPoint(request.cut or cuts.OUTPUT)
    return _finish(fitted, request, request.base, point, preprocessing, size, WeightSource("own"))


def _need_tensorflow() -> None:
    """Keras must compute with TensorFlow, channels last: the graphs here are TensorFlow's."""
    import keras

    backend, layout = keras.backend.backend(), keras.config.image_data_format()
    if backend != "tensorflow":
        raise BaseError(f"Keras runs on {backend} here; set KERAS_BACKEND=tensorflow before it is imported")
    if layout != "channels_last":
        raise BaseError(
            f"Keras has image_data_format {layout}; set it to channels_last (~/.keras/keras.json)"
        )


# ------------------------------------------------------------------------------------------------- catalog


def _from_catalog(request: BaseRequest, spec: BaseSpec, source: WeightSource, cache: Cache) -> LoadedBase:
    size = request.size or spec.size
    preprocessing = request.preprocessing or Preprocessing.parse(spec.preprocessing)
    preprocess.check_channels(preprocessing, 3, spec.name)
    name = request.cut or spec.cut
    point = spec.cuts.get(name)
    model = None
    if point is None:
        # Not an alias: a layer below the top, else one in it, else an error that lists both.
        model = _built(spec, source, cache, top=False, size=size)
        point = CutPoint(name)
        if not _has(model, name):
            if any(cut.top for cut in spec.cuts.values()):
                whole: Any = family_of(spec.name).build(spec, top=True, size=spec.size)
                if not _has(whole, name):
                    cuts.cut_at(whole, name, aliases=spec.cuts)
                del whole
            point, model = CutPoint(name, top=True), None
    if model is None:
        model = _built(spec, source, cache, top=point.top, size=size)
    return _finish(model, request, spec.name, point, preprocessing, size, source, spec.cuts, spec.blocks)


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
    model: Any,
    request: BaseRequest,
    name: str,
    point: CutPoint,
    preprocessing: Preprocessing,
    size: int,
    source: WeightSource,
    aliases: Mapping[str, CutPoint] | None = None,
    blocks: str = "",
) -> LoadedBase:
    cut_model, path = cuts.cut_at(model, point.layer, aliases=aliases or ())
    check_finite(cut_model, f"base {name!r}")
    identity = digest(cut_model)
    if source.kind == "random":
        # Calibrated bits differ between machines; what they come from does not.
        calibrate(cut_model, preprocessing, size)
        identity = hashlib.sha256(f"calibrated {CALIBRATION_VERSION}\n{identity}".encode()).hexdigest()
    shape = cut_model.output_shape
    if not isinstance(shape, tuple):
        raise BaseError(f"base {name!r}: the cut {path!r} has several outputs; cut at one layer")
    pooling = cuts.resolve_pooling(request.pooling, point.pooling, shape)
    recipe = Recipe(
        base_digest=identity,
        pooling=pooling,
        pixels=Pixels(height=size, width=size, resize=request.resize),
        preprocessing=preprocessing,
        precision=precision.here(request.precision),
        dtype=request.dtype,
    )
    rows = cuts.row_shape(shape, pooling, f"base {name!r} cut at {path!r}")
    return LoadedBase(
        name=name,
        cut=path,
        model=cut_model,
        pooling=pooling,
        preprocessing=preprocessing,
        size=size,
        blocks=blocks,
        spec=StoreSpec(base=name, cut=path, shape=rows, recipe=recipe),
    )
