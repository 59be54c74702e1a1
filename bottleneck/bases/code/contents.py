"""Read what objects contain: attributes, state, arrays and files."""

from __future__ import annotations

import functools
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bottleneck.errors import BaseError

#: What compiling and training leave in a model, besides what any model has.
_TRAINING = frozenset({"optimizer", "_compile_config", "history", "stop_training"})
#: Basic classes, and what gives their instances' content without asking a derived class.
_CONTENT: dict[type, Callable[[Any], Any]] = {
    int: int.__int__,
    float: float.__float__,
    complex: complex.__complex__,
    str: str.__str__,
    bytes: lambda value: bytes.__getitem__(value, slice(None)),
    list: list.__iter__,
    tuple: tuple.__iter__,
    dict: dict.items,
    set: set.__iter__,
    frozenset: frozenset.__iter__,
}
_IDLE_ENDS = ("_initializer", "_regularizer", "_constraint")


@functools.cache
def _common_attributes(model: bool) -> frozenset[str]:
    """Name the attributes that every layer, or every model, has."""
    import keras

    if not model:
        return frozenset(vars(keras.layers.Layer(name="any")))
    image = keras.Input((1,), name="any")
    kinds = (keras.Model(name="any"), keras.Sequential(name="any"), keras.Model(image, image, name="any"))
    return _TRAINING.union(*map(vars, kinds))


def special_attributes(operation: Any) -> dict[str, Any]:
    """Return what an operation holds for inference beyond common attributes."""
    import keras

    common = _common_attributes(isinstance(operation, keras.Model))
    return {
        name: value
        for name, value in vars(operation).items()
        if name not in common
        and not name.startswith(("_self_", "_tf_", "_obj_reference_counts"))
        and not name.endswith(_IDLE_ENDS)
    }


def idle_attributes(operation: Any) -> dict[str, Any]:
    """Return attributes named as initializers or constraints."""
    ends = ("_initializer", "_constraint")
    return {name: value for name, value in vars(operation).items() if name.endswith(ends)}


def built_in(value: Any) -> type | None:
    """Return the basic Python class that the class of `value` derives from."""
    # Not isinstance: a proxy answers it for its target.
    return next((kind for kind in type(value).__mro__ if kind in _CONTENT), None)


def plain_content(value: Any) -> Any:
    """Convert `value` to its basic class, past any overridden methods."""
    kind = built_in(value)
    if kind is None:
        raise TypeError(f"a {type(value).__qualname__} is no instance of a basic class")
    if isinstance(value, OrderedDict):
        return dict(OrderedDict.items(value))
    return kind(_CONTENT[kind](value))


def instance_state(value: Any) -> dict[str, Any]:
    """Return the attributes of an instance, slots included."""
    state = object.__getstate__(value)
    plain, slots = state if isinstance(state, tuple) else (state, None)
    return {**(slots or {}), **(plain or {})}


def files_of(operation: Any) -> list[list[str]]:
    """Hash every file of the SavedModel that a layer runs."""
    folder = Path(operation.filepath)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        raise BaseError(
            f"layer {operation.name!r} runs the SavedModel {folder}, which is gone, so it cannot be identified"
        )
    return [[str(path.relative_to(folder)), hashlib.sha256(path.read_bytes()).hexdigest()] for path in files]


def array_of(value: Any) -> list[Any]:
    """Return shape, type and a hash of the bytes of an array."""
    import numpy as np

    array = np.asarray(value)
    plain = np.ascontiguousarray(array)
    little = plain if plain.dtype.byteorder != ">" else plain.astype(plain.dtype.newbyteorder("<"))
    name = plain.dtype.name if plain.dtype.names is None else str(plain.dtype)
    return [list(array.shape), name, hashlib.sha256(little.view(np.uint8).data).hexdigest()]


def settings_of(value: Any) -> Any:
    """Return what sets a Keras object apart in its class, if known."""
    name = type(value).__name__
    if name in ("DType", "TensorShape"):
        return repr(value)
    if name == "SeedGenerator" or not hasattr(value, "get_config"):
        # A seed that nobody gave differs each time; a base that draws its rows by it is refused elsewhere.
        return None
    try:
        return {key: item for key, item in value.get_config().items() if key != "name"}
    except (NotImplementedError, TypeError, ValueError):
        return None


def content_of(cell: Any) -> Any:
    """Return the value of a closure's variable, or a word for none."""
    try:
        return cell.cell_contents
    except ValueError:
        return "empty"
