"""What objects hold: attributes of a layer that are its own, state of an instance, bytes of an array or of files."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any

from bottleneck.errors import BaseError

#: What compiling and training leave in a model, besides what any model has.
_TRAINING = frozenset({"optimizer", "_compile_config", "history", "stop_training"})
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


def state_of(value: Any) -> dict[str, Any]:
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
    return [list(array.shape), plain.dtype.name, hashlib.sha256(little.view(np.uint8).data).hexdigest()]


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
