"""What objects hold: attributes of a layer that are its own, state of an instance, bytes of an array or of files."""

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
def _of_any(model: bool) -> frozenset[str]:
    """Names of the attributes that Keras gives to every layer, or to every model."""
    import keras

    if not model:
        return frozenset(vars(keras.layers.Layer(name="any")))
    image = keras.Input((1,), name="any")
    kinds = (keras.Model(name="any"), keras.Sequential(name="any"), keras.Model(image, image, name="any"))
    return _TRAINING.union(*map(vars, kinds))


def own_attributes(operation: Any) -> dict[str, Any]:
    """What a layer or an operation holds besides what every one does; nothing that acts in training alone."""
    import keras

    common = _of_any(isinstance(operation, keras.Model))
    return {
        name: value
        for name, value in vars(operation).items()
        if name not in common
        and not name.startswith(("_self_", "_tf_", "_obj_reference_counts"))
        and not name.endswith(_IDLE_ENDS)
    }


def idle_attributes(operation: Any) -> dict[str, Any]:
    """Attributes under the names of initializers and constraints, which `own_attributes` leaves out."""
    ends = ("_initializer", "_constraint")
    return {name: value for name, value in vars(operation).items() if name.endswith(ends)}


def built_in(value: Any) -> type | None:
    """The basic class of Python's that `value` is an instance of, though maybe not directly."""
    # Not isinstance, which a proxy answers for what it stands for.
    return next((kind for kind in type(value).__mro__ if kind in _CONTENT), None)


def plain_content(value: Any) -> Any:
    """`value` as an instance of its basic class itself, whatever its own class makes of the methods."""
    kind = built_in(value)
    if kind is None:
        raise TypeError(f"a {type(value).__qualname__} is no instance of a basic class")
    if isinstance(value, OrderedDict):
        return dict(OrderedDict.items(value))
    return kind(_CONTENT[kind](value))


def instance_state(value: Any) -> dict[str, Any]:
    """Attributes of an instance, in its dictionary and in slots."""
    state = object.__getstate__(value)
    plain, slots = state if isinstance(state, tuple) else (state, None)
    return {**(slots or {}), **(plain or {})}


def files_of(operation: Any) -> list[list[str]]:
    """Every file of the SavedModel that a layer runs, by its bytes: their place is no matter."""
    folder = Path(operation.filepath)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        raise BaseError(
            f"layer {operation.name!r} runs the SavedModel {folder}, which is gone, so it cannot be identified"
        )
    return [[str(path.relative_to(folder)), hashlib.sha256(path.read_bytes()).hexdigest()] for path in files]


def array_of(value: Any) -> list[Any]:
    """Shape, type and a hash of the bytes of an array or a tensor."""
    import numpy as np

    array = np.asarray(value)
    plain = np.ascontiguousarray(array)
    little = plain if plain.dtype.byteorder != ">" else plain.astype(plain.dtype.newbyteorder("<"))
    name = plain.dtype.name if plain.dtype.names is None else str(plain.dtype)
    return [list(array.shape), name, hashlib.sha256(little.view(np.uint8).data).hexdigest()]


def settings_of(value: Any) -> Any:
    """What tells an object of Keras' or TensorFlow's from another one of its class, where that can be had."""
    name = type(value).__name__
    if name in ("DType", "TensorShape"):
        return repr(value)
    if name == "SeedGenerator" or not hasattr(value, "get_config"):
        # A seed that nobody gave is another one each time; a base whose rows are drawn by it is refused elsewhere.
        return None
    try:
        return {key: item for key, item in value.get_config().items() if key != "name"}
    except (NotImplementedError, TypeError, ValueError):
        return None


def content_of(cell: Any) -> Any:
    """What a closure's variable holds; a word where it has no value yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return "empty"
