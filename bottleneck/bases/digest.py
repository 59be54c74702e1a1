"""What makes one base the same as another: a digest of its graph up to the cut, and of every weight's bytes.

In it, step by step (`bottleneck.bases.graph.walk`): the operation's class under the name Keras exports it by, its
configuration, its call arguments, which earlier steps feed it, and shape, dtype and bytes of its weights.

Not in it: names; configuration at the constructor's default; what cannot change inference (`trainable`, initializers,
regularizers, constraints, dropout, seeds, BatchNorm momentum); layers that pass their input on in inference (dropout
and noise layers, `Identity`); nesting; the image's height and width, which are the pixel contract's. A class that is
not Keras' own (a custom layer, a subclassed model) adds its qualified name and, where Python can show it, its source.
"""

from __future__ import annotations

import hashlib
import inspect
from typing import TYPE_CHECKING, Any

from bottleneck.bases.graph import IMAGE, Network, Ref, Step, walk
from bottleneck.bases.training_only import PASS_THROUGH
from bottleneck.errors import BaseError
from bottleneck.schema import canonical_json

if TYPE_CHECKING:
    import numpy as np

#: Part of the digest and of every remembered one: raise it when the rules below change.
DIGEST_VERSION = 1

#: What a step became: its new number, or what a pass-through hands on.
_Moved = dict[int, "int | Ref"]

_IGNORED = frozenset(
    {
        "name",
        "trainable",
        "seed",
        "dropout",
        "recurrent_dropout",
        "drop_path_rate",
        "registered_name",
        "module",
    }
)
_IGNORED_ENDS = ("_initializer", "_regularizer", "_constraint")
_IGNORED_OF = {"BatchNormalization": frozenset({"momentum", "synchronized"})}


def digest(model: Any) -> str:
    """64 hex digits that are equal exactly when two bases compute the same function with the same weights.

    Parameters
    ----------
    model : keras.Model
        Functional or Sequential, one input (a preprocessed image), one output (the cut).

    Returns
    -------
    str

    Raises
    ------
    BaseError
        A layer has no configuration to tell it from another one of its class.
    """
    network = walk(model)
    total = hashlib.sha256(b"bottleneck base %d\n" % DIGEST_VERSION)
    total.update(canonical_json([str(network.image.dtype), network.image.shape[-1]]) + b"\n")
    moved: _Moved = {}
    described: dict[int, Any] = {}
    count = 0
    for number, step in enumerate(network.steps):
        if passes_through(step, network):
            # No number of its own, so that a network with it and one without count alike.
            moved[number] = _resolve(step.refs[0], moved)
            continue
        if id(step.operation) not in described:
            described[id(step.operation)] = [_class_name(step.operation), _config(step), _weights(step)]
        line = [*described[id(step.operation)], _arguments(step, moved)]
        total.update(canonical_json(line) + b"\n")
        moved[number] = count
        count += 1
    output = _resolve(network.output, moved)
    total.update(canonical_json(["output", output.step, output.output]))
    return total.hexdigest()


def passes_through(step: Step, network: Network) -> bool:
    """Whether `step` hands its one input on unchanged in inference, dtype included."""
    if type(step.operation).__name__ not in PASS_THROUGH or not _is_keras(type(step.operation)):
        return False
    if len(step.refs) != 1:
        return False
    feeding = step.refs[0].step
    before = str(network.image.dtype) if feeding == IMAGE else network.steps[feeding].dtype
    return before == step.dtype


def _resolve(ref: Ref, moved: _Moved) -> Ref:
    if ref.step == IMAGE:
        return ref
    known = moved[ref.step]
    return known if isinstance(known, Ref) else Ref(known, ref.output)


# ---------------------------------------------------------------------------------------------- one operation


def _is_keras(kind: type) -> bool:
    return kind.__module__.split(".")[0] == "keras"


def _class_name(operation: Any) -> list[str]:
    kind = type(operation)
    if _is_keras(kind):
        # Modules below keras.src move between versions; the exported name is Keras' promise.
        from keras.src.api_export import get_name_from_symbol

        return [get_name_from_symbol(kind) or f"keras:{kind.__name__}"]
    return [f"{kind.__module__}:{kind.__qualname__}", *_sources(kind)]


def _sources(kind: type) -> list[str]:
    """sha256 of the source of `kind` and of its ancestors that are not Keras' own: `call` may be anywhere in them."""
    found = []
    for ancestor in kind.__mro__:
        if ancestor is object or _is_keras(ancestor) or ancestor.__module__.split(".")[0] == "tensorflow":
            continue
        try:
            found.append(hashlib.sha256(inspect.getsource(ancestor).encode()).hexdigest())
        except (OSError, TypeError):
            found.append("no source")
    return found


def _config(step: Step) -> Any:
    operation = step.operation
    try:
        config = dict(operation.get_config())
    except NotImplementedError as error:
        attributes = _attributes(operation)
        if attributes is None:
            raise BaseError(
                f"layer {operation.name!r} of class {type(operation).__qualname__} has no get_config, so it cannot "
                "be told from another one of its class; add get_config that returns its constructor's arguments"
            ) from error
        config = attributes
    defaults = _defaults(type(operation))
    ignored = _IGNORED_OF.get(type(operation).__name__, frozenset())
    dtype = getattr(getattr(operation, "dtype_policy", None), "name", None)
    if dtype is not None:
        config["dtype"] = None if dtype == "float32" else dtype
    plain = {}
    for key, value in config.items():
        if _is_ignored(key) or key in ignored or (key == "dtype" and value is None):
            continue
        normal = _normal(value, operation)
        if key in defaults and _same(normal, defaults[key], operation):
            continue
        plain[key] = normal
    return plain


def _is_ignored(key: str) -> bool:
    return key in _IGNORED or key.endswith(_IGNORED_ENDS)


def _attributes(operation: Any) -> dict[str, Any] | None:
    """Plain attributes of a stateless operation that takes more than numbers (Keras writes no config for those)."""
    import keras

    if isinstance(operation, keras.layers.Layer) or not _is_keras(type(operation)):
        return None
    return {key: value for key, value in vars(operation).items() if not key.startswith("_")}


def _defaults(kind: type) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for ancestor in reversed(kind.__mro__):
        if ancestor is object or "__init__" not in vars(ancestor):
            continue
        for name, parameter in inspect.signature(ancestor.__init__).parameters.items():  # type: ignore[misc]
            if parameter.default is not inspect.Parameter.empty:
                found[name] = parameter.default
    return found


def _same(normal: Any, default: Any, operation: Any) -> bool:
    try:
        return bool(normal == _normal(default, operation))
    except BaseError:
        return False


def _arguments(step: Step, moved: _Moved) -> Any:
    args, kwargs = step.arguments
    # `layer(x)` and `layer(inputs=x)` are one call: bind to the parameters' names, and drop defaults.
    try:
        bound = inspect.signature(step.operation.call).bind(*args, **kwargs)
        named = dict(bound.arguments)
        defaults = {n: p.default for n, p in inspect.signature(step.operation.call).parameters.items()}
    except (TypeError, ValueError):
        named, defaults = {"args": args, **kwargs}, {}
    # The base always runs in inference mode, whatever a call recorded: the outer call's `training` wins in Keras 3.
    named = {k: v for k, v in named.items() if k != "training" and not (k in defaults and v is defaults[k])}
    return _normal(named, step.operation, moved)


def _normal(value: Any, operation: Any, moved: _Moved | None = None) -> Any:
    """`value` as plain JSON: tuples as lists, arrays by their bytes, nested Keras objects by class and config."""
    import numpy as np

    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, np.generic):
        return value if value == value and abs(value) != float("inf") else repr(value)
    if isinstance(value, Ref):
        source = _resolve(value, moved or {})
        return ["step", source.step, source.output]
    if isinstance(value, (list, tuple)):
        return [_normal(item, operation, moved) for item in value]
    if isinstance(value, dict):
        if value.get("class_name") == "DTypePolicy":
            return _normal(value["config"]["name"], operation)
        if value.get("class_name") in PASS_THROUGH:
            return [value["class_name"]]  # inside a wrapper: its rates do not matter there either
        return {str(k): _normal(v, operation, moved) for k, v in value.items() if not _is_ignored(str(k))}
    if isinstance(value, (set, frozenset)):
        return sorted(str(item) for item in value)
    if value is Ellipsis:
        return ["..."]
    if isinstance(value, slice):
        return ["slice", *(_normal(v, operation, moved) for v in (value.start, value.stop, value.step))]
    if isinstance(value, np.generic) and value.ndim == 0:
        return _normal(value.item(), operation)
    if hasattr(value, "__array__"):
        return _array(np.asarray(value))
    if isinstance(value, np.dtype) or type(value).__name__ == "DType":
        return str(getattr(value, "name", value))
    if hasattr(value, "get_config"):
        return [type(value).__qualname__, _normal(dict(value.get_config()), operation)]
    if callable(value):
        return [f"{value.__module__}:{value.__qualname__}"]
    raise BaseError(
        f"layer {operation.name!r} holds a {type(value).__qualname__}, which cannot be identified; "
        "give it a get_config of numbers, texts and lists"
    )


def _weights(step: Step) -> Any:
    import numpy as np

    return [_array(np.asarray(weight)) for weight in getattr(step.operation, "weights", ())]


def _array(array: np.ndarray) -> list[Any]:
    import numpy as np

    plain = np.ascontiguousarray(array)
    little = plain if plain.dtype.byteorder != ">" else plain.astype(plain.dtype.newbyteorder("<"))
    return [list(array.shape), plain.dtype.name, hashlib.sha256(little.view(np.uint8).data).hexdigest()]
