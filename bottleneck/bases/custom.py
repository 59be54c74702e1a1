"""Networks of users: `.keras` files, ``module:function``, or model objects.

They take one image of 1 or 3 channels, and the user says what pixels they were trained on: a model does not say it, and
a wrong guess ruins features without an error.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from bottleneck.bases.code.origin import is_keras
from bottleneck.bases.graph import network_of, walk
from bottleneck.bases.layer_names import fresh_names
from bottleneck.bases.weight_copy import plain_copy
from bottleneck.errors import BaseError, UsageError, WeightsError
from bottleneck.schema import PREPROCESSINGS, Preprocessing


def is_file(base: str) -> bool:
    """Whether `base` names a `.keras` file.

    Examples
    --------
    >>> is_file("nets/alexnet.keras"), is_file("nets.alexnet:build")
    (True, False)
    """
    return base.lower().endswith(".keras")


def is_function(base: str) -> bool:
    """Whether `base` is written ``module:function``.

    Examples
    --------
    >>> is_function("nets.alexnet:build"), is_function("vgg16")
    (True, False)
    """
    return ":" in base and not is_file(base)


def label(base: str) -> str:
    """Name the store of `base`: file stem, or module and function.

    Examples
    --------
    >>> label("nets/alexnet.keras"), label("nets.alexnet:build")
    ('alexnet', 'alexnet_build')
    """
    if is_file(base):
        return Path(base).stem
    module, _, function = base.partition(":")
    return f"{module.rpartition('.')[2]}_{function.rpartition('.')[2]}"


def load_archive(path: Path) -> Any:
    """Load a `.keras` file in safe mode, which executes nothing in it.

    Raises
    ------
    WeightsError
        It cannot be read; see `plain_copy`.
    BaseError
        No such file, or it needs code (a Lambda, a custom class) that is not in the file.
    """
    import keras

    if not path.is_file():
        raise BaseError(f"base {path}: there is no such file")
    try:
        with plain_copy(path) as plain:
            return keras.saving.load_model(plain, compile=False, safe_mode=True)
    except WeightsError as error:
        # Others speak of this machine, not of the file.
        unreadable = "cannot be read" in str(error)
        advice = "; expected a model written by model.save('NAME.keras') in Keras 3" if unreadable else ""
        raise WeightsError(f"base {error}{advice}") from error
    except Exception as error:  # Keras raises whatever a layer's constructor raises
        text = " ".join(str(error).split())[:400]
        if "lambda" in text.lower():
            advice = "it holds a Lambda layer, which is code; rebuild it with stock layers or keras.ops"
        elif "registered" in text or "class_name" in text or "custom" in text.lower():
            advice = (
                "it needs a custom class; give the base as module:function that builds and returns the model"
            )
        else:
            advice = "expected a model written by model.save('NAME.keras') in Keras 3"
        raise BaseError(f"base {path}: cannot be loaded: {text}; {advice}") from error


def call(reference: str) -> Any:
    """Call ``module:function`` without arguments and return its value.

    The working folder counts as a place to import from, after everything that is installed.

    Raises
    ------
    BaseError
        The module or the function is missing, or fails.
    """
    module, _, attribute = reference.partition(":")
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.append(here)
    try:
        value: Any = import_module(module)
        for part in attribute.split("."):
            value = getattr(value, part)
        with fresh_names():
            return value()
    except Exception as error:  # a user's code may raise anything
        raise BaseError(
            f"base {reference!r}: {type(error).__name__}: {error}; expected module:function with a function that takes "
            "no arguments and returns a keras.Model"
        ) from error
    finally:
        if added:
            sys.path.remove(here)


def call_function(reference: str) -> Any:
    """Return the model of ``module:function``; `BaseError` for anything else."""
    import keras

    model = call(reference)
    if not isinstance(model, keras.Model):
        raise BaseError(f"base {reference!r} returned a {type(model).__qualname__}; expected a keras.Model")
    return model


def need_preprocessing(preprocessing: Preprocessing | None, base: str) -> Preprocessing:
    """Return `preprocessing`, or raise `UsageError` with the choices."""
    if preprocessing is None:
        raise UsageError(
            f"base {base!r} needs --preprocessing: what were its pixels when it was trained? "
            f"named: {', '.join(PREPROCESSINGS)} (none: 0..255 as they are); "
            "or scale=1/255,offset=0,channels=rgb|bgr|grey"
        )
    return preprocessing


def fit(model: Any, size: int | None, base: str) -> tuple[Any, int]:
    """Make `model` a graph on square images, and return both.

    A Sequential without an input is built, a subclassed model becomes the one layer of a graph, and an input of open
    height and width is fixed; layers and weights stay the same objects.

    Parameters
    ----------
    model : keras.Model
    size : int or None
        What the user asked for; None takes it from the model's input.
    base : str
        For messages.

    Returns
    -------
    keras.Model, int

    Raises
    ------
    BaseError
        Several inputs, an input that is no image, a Lambda layer, or a size that does not fit.
    """
    import keras

    graph = network_of(model)
    if graph is None:
        return _wrapped(model, size, base)
    if len(graph._inputs) != 1:
        shapes = ", ".join(f"{t.name} {tuple(t.shape)}" for t in graph._inputs)
        raise BaseError(f"base {base!r} has {len(graph._inputs)} inputs ({shapes}); expected one image")
    image = graph._inputs[0]
    shape, dtype = tuple(image.shape), str(image.dtype)
    if len(shape) != 4 or shape[3] not in (1, 3):
        raise BaseError(
            f"base {base!r} takes {shape}; expected one image "
            "(batch, height, width, channels) with 1 or 3 channels last"
        )
    if not dtype.startswith(("float", "bfloat")):
        raise BaseError(
            f"base {base!r} takes {dtype} images; preprocessed images are float: give its Input a float dtype"
        )
    fixed = _size(shape, size, base)
    if shape[1:3] != (fixed, fixed) or shape[0] is not None:
        image = keras.Input((fixed, fixed, shape[3]), dtype=dtype, name=image.name)
        model = _reused(model, image, base)
    _refuse_lambda(model, base)
    return model, fixed


def _size(shape: tuple[int | None, ...], size: int | None, base: str) -> int:
    height, width = shape[1], shape[2]
    if height != width and height is not None and width is not None:
        raise BaseError(f"base {base!r} takes images of {height}x{width}; only square images are supported")
    fixed = height or width
    if fixed is None and size is None:
        raise BaseError(f"base {base!r} takes images of any size; give --size")
    if fixed is not None and size is not None and fixed != size:
        raise BaseError(
            f"base {base!r} takes images of {fixed}x{fixed}; --size {size} does not fit, leave it out"
        )
    return int(fixed or size or 0)


def _reused(model: Any, image: Any, base: str) -> Any:
    import keras

    try:
        # A Sequential is rebuilt as a graph: its own class would copy the layers into a list that owns them.
        graph = network_of(model)
        output = graph._run_through_graph([image])  # type: ignore[union-attr]
        return keras.Model(image, output, name=model.name)
    except (ValueError, TypeError) as error:
        raise BaseError(f"base {base!r} does not take images of {tuple(image.shape[1:])}: {error}") from error


def _wrapped(model: Any, size: int | None, base: str) -> tuple[Any, int]:
    import keras

    if isinstance(model, keras.Sequential):
        if size is None:
            raise BaseError(
                f"base {base!r} is a Sequential without an input; give --size, or start it with keras.Input"
            )
        try:
            model.build((None, size, size, 3))
        except Exception as error:  # shapes that do not fit show in many ways
            raise BaseError(f"base {base!r} does not take {size}x{size}x3 images: {error}") from error
        if network_of(model) is None:
            raise BaseError(
                f"base {base!r}: this Sequential is no graph of layers; build it with the functional API"
            )
        return fit(model, size, base)
    if size is None:
        raise BaseError(
            f"base {base!r} is a subclassed model, which does not say what size it takes; give --size"
        )
    image = keras.Input((size, size, 3))
    try:
        output = model(image)
    except Exception as error:  # a user's `call` may raise anything
        raise BaseError(f"base {base!r} does not take {size}x{size}x3 images: {error}") from error
    if not isinstance(output, keras.KerasTensor):
        raise BaseError(f"base {base!r} returns several outputs; expected one")
    return keras.Model(image, output, name=model.name), size


def _refuse_lambda(model: Any, base: str) -> None:
    import keras

    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Lambda):
            raise BaseError(
                f"base {base!r}: layer {layer.name!r} is a Lambda, which is code that no merged model may carry; "
                "write it with keras.ops or as a layer class"
            )


def foreign(model: Any) -> list[str]:
    """List classes in `model`, at any depth, that plain Keras cannot load.

    Parameters
    ----------
    model : keras.Model
        Functional or Sequential.

    Returns
    -------
    list of str
        Qualified names, sorted.
    """
    operations = [step.operation for step in walk(model).steps]
    inside = (
        layer for one in operations if hasattr(one, "_flatten_layers") for layer in one._flatten_layers()
    )
    kinds = {type(one) for one in (*operations, *inside)}
    return sorted(f"{k.__module__}:{k.__qualname__}" for k in kinds if not is_keras(k))
