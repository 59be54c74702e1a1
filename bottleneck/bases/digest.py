"""Digest a base: its graph up to the cut, and all weights.

In it, step by step (`bottleneck.bases.graph.walk`): the operation's class under the name Keras exports it by, its
configuration, its call arguments, which earlier steps feed it, and shape, dtype and bytes of its weights.

Not in it: names; configuration at the constructor's default; what cannot change inference (`trainable`, initializers,
regularizers, constraints, dropout, seeds, BatchNorm momentum); layers that pass their input on in inference (dropout
and noise layers, `Identity`); nesting; the image's height and width, which are the pixel contract's.

A configuration says nothing of code: of a function given as activation, of what a custom layer's `call` does, of what
it keeps outside `get_config`. Where an operation has code in it (its class, or anything in it, is not from Keras), the
objects themselves are described (`bottleneck.bases.code.reader`): instructions, constants, closures, module globals,
attributes. Only the digest of a base with code in it contains the number of these rules, so no base of stock layers
changes its name with them. Bytecode is used and not source text, since it is what runs, lambdas have it too, and it has
no comments; the price is that another minor version of Python gives another base of this kind. What cannot be seen (a
library in C, a file that `call` reads) is left to the canary, which a base that may be code computes at every run.
"""

from __future__ import annotations

import hashlib
import inspect
from typing import Any

from bottleneck.bases.code.contents import array_of, files_of, special_attributes
from bottleneck.bases.code.origin import is_keras
from bottleneck.bases.code.reader import CodeReader
from bottleneck.bases.graph import IMAGE, Network, Ref, Step, network_of, steps_of, walk
from bottleneck.bases.training_only import PASS_THROUGH
from bottleneck.errors import BaseError
from bottleneck.schema import canonical_json

#: Part of every digest: raise it when the rules below change.
DIGEST_VERSION = 1

#: Part of the digests of bases with code in them alone: raise it when the description of code changes.
CODE_VERSION = 1

#: What a step became: its new number, or the source of a pass-through.
_Moved = dict[int, "int | Ref"]

# fmt: off
_IGNORED = frozenset((
    "name", "trainable", "seed", "dropout", "recurrent_dropout", "drop_path_rate", "registered_name", "module",
))
# fmt: on
_IGNORED_ENDS = ("_initializer", "_regularizer", "_constraint")
_IGNORED_OF = {"BatchNormalization": frozenset({"momentum", "synchronized"})}


def digest(model: Any) -> str:
    """Return 64 hex digits, equal for equal functions with equal weights.

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
        A layer holds what cannot be identified.
    """
    network = walk(model)
    describer = _Describer()
    lines = describer.lines(network)
    head = b"bottleneck base %d\n" % DIGEST_VERSION
    if describer.reader.code_count:
        head = b"bottleneck base %d with code %d\n" % (DIGEST_VERSION, CODE_VERSION)
    total = hashlib.sha256(head)
    total.update(canonical_json([str(network.image.dtype), network.image.shape[-1]]) + b"\n")
    total.update(b"\n".join(lines))
    return total.hexdigest()


class _Describer:
    def __init__(self) -> None:
        self.reader = CodeReader(self.operation_of_keras, self.graph)

    def lines(self, network: Network) -> list[bytes]:
        moved: _Moved = {}
        described: dict[int, list[Any]] = {}
        lines: list[bytes] = []
        for number, step in enumerate(network.steps):
            if passes_through(step, network):
                # No number of its own, so that a network with it and one without count alike.
                moved[number] = _resolve(step.refs[0], moved)
                continue
            if id(step.operation) not in described:
                described[id(step.operation)] = self.operation(step.operation)
            lines.append(canonical_json([*described[id(step.operation)], self.arguments(step, moved)]))
            moved[number] = len(lines) - 1
        output = _resolve(network.output, moved)
        return [*lines, canonical_json(["output", output.step, output.output])]

    def operation(self, operation: Any) -> list[Any]:
        """Describe class, configuration (or content with code) and weights."""
        weights = [self.reader.array(weight) for weight in getattr(operation, "weights", ())]
        if self.is_code(operation):
            return [self.content(operation), weights]
        return [_class_name(operation), self.config(operation), weights]

    def operation_of_keras(self, operation: Any) -> Any:
        """Describe an operation of Keras inside code, which has its weights."""
        graph = self.graph(operation)
        if graph is not None:
            return ["network", graph]
        if self.is_code(operation):
            return self.content(operation)
        if type(operation).__name__ in PASS_THROUGH:
            return _class_name(operation)
        weights = [self.reader.describe(weight) for weight in getattr(operation, "weights", ())]
        return [_class_name(operation), self.config(operation), weights]

    def is_code(self, operation: Any) -> bool:
        """Whether it has code from outside Keras, or runs a file."""
        if not is_keras(type(operation)) or type(operation).__name__ == "TFSMLayer":
            return True
        return bool(self.reader.code_in(special_attributes(operation).items()))

    def content(self, operation: Any) -> Any:
        if type(operation).__name__ != "TFSMLayer" or not is_keras(type(operation)):
            return self.reader.operation(operation)
        self.reader.code_count += 1
        return ["files", files_of(operation), operation.call_endpoint]

    def graph(self, operation: Any) -> Any:
        """Hash a nested graph; None without one input and output."""
        root = network_of(operation) or getattr(operation, "_functional", None)
        if root is None or len(root._inputs) != 1 or len(root._outputs) != 1:
            return None
        return hashlib.sha256(b"\n".join(self.lines(steps_of(root)))).hexdigest()

    def config(self, operation: Any) -> Any:
        """Return settings that differ from defaults and matter in inference."""
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
            normal = self.normal(value, operation)
            if key in defaults and self.same(normal, defaults[key], operation):
                continue
            plain[key] = normal
        return plain

    def same(self, normal: Any, default: Any, operation: Any) -> bool:
        try:
            return bool(normal == self.normal(default, operation))
        except BaseError:
            return False

    def arguments(self, step: Step, moved: _Moved) -> Any:
        args, kwargs = step.arguments
        # `layer(x)` and `layer(inputs=x)` are one call: bind to the parameters' names, and drop defaults.
        try:
            bound = inspect.signature(step.operation.call).bind(*args, **kwargs)
            named = dict(bound.arguments)
            defaults = {n: p.default for n, p in inspect.signature(step.operation.call).parameters.items()}
        except (TypeError, ValueError):
            named, defaults = {"args": args, **kwargs}, {}
        # The base always runs in inference mode, whatever a call recorded: the outer call's `training` wins in Keras 3.
        named = {
            k: v for k, v in named.items() if k != "training" and not (k in defaults and v is defaults[k])
        }
        return self.normal(named, step.operation, moved)

    def normal(self, value: Any, operation: Any, moved: _Moved | None = None) -> Any:
        """Convert `value` to plain JSON; arrays by their bytes."""
        import numpy as np

        if value is None or isinstance(value, (bool, str)):
            return value
        if isinstance(value, (int, float)) and not isinstance(value, np.generic):
            return value if value == value and abs(value) != float("inf") else repr(value)
        if isinstance(value, Ref):
            source = _resolve(value, moved or {})
            return ["step", source.step, source.output]
        if isinstance(value, (list, tuple)):
            return [self.normal(item, operation, moved) for item in value]
        if isinstance(value, dict):
            return self.mapping(value, operation, moved)
        if isinstance(value, (set, frozenset)):
            return sorted(str(item) for item in value)
        if value is Ellipsis:
            return ["..."]
        if isinstance(value, slice):
            return [
                "slice",
                *(self.normal(v, operation, moved) for v in (value.start, value.stop, value.step)),
            ]
        if isinstance(value, np.generic) and value.ndim == 0:
            return self.normal(value.item(), operation)
        if hasattr(value, "__array__"):
            return array_of(value)
        if isinstance(value, np.dtype) or type(value).__name__ == "DType":
            return str(getattr(value, "name", value))
        code = self.reader.code_in([("it", value)])
        if code:
            return code
        if hasattr(value, "get_config"):
            return [type(value).__qualname__, self.normal(dict(value.get_config()), operation)]
        if callable(value):
            return [f"{value.__module__}:{value.__qualname__}"]
        raise BaseError(
            f"layer {operation.name!r} holds a {type(value).__qualname__}, which cannot be identified; "
            "give it a get_config of numbers, texts and lists"
        )

    def mapping(self, value: dict[Any, Any], operation: Any, moved: _Moved | None) -> Any:
        """Convert a dictionary, which may be a saved Keras object."""
        if value.get("class_name") == "DTypePolicy":
            return self.normal(value["config"]["name"], operation)
        if value.get("class_name") in PASS_THROUGH:
            return [value["class_name"]]  # inside a wrapper: its rates do not matter there either
        return {str(k): self.normal(v, operation, moved) for k, v in value.items() if not _is_ignored(str(k))}


def passes_through(step: Step, network: Network) -> bool:
    """Whether `step` returns its one input unchanged in inference."""
    if type(step.operation).__name__ not in PASS_THROUGH or not is_keras(type(step.operation)):
        return False
    if len(step.refs) != 1 or "call" in vars(step.operation):
        return False
    feeding = step.refs[0].step
    before = str(network.image.dtype) if feeding == IMAGE else network.steps[feeding].dtype
    return before == step.dtype


def _resolve(ref: Ref, moved: _Moved) -> Ref:
    if ref.step == IMAGE:
        return ref
    known = moved[ref.step]
    return known if isinstance(known, Ref) else Ref(known, ref.output)


def _class_name(operation: Any) -> list[str]:
    # Modules below keras.src move between versions; the exported name is Keras' promise.
    from keras.src.api_export import get_name_from_symbol

    kind = type(operation)
    return [get_name_from_symbol(kind) or f"keras:{kind.__name__}"]


def _is_ignored(key: str) -> bool:
    return key in _IGNORED or key.endswith(_IGNORED_ENDS)


def _attributes(operation: Any) -> dict[str, Any] | None:
    # Keras writes no config for stateless operations that take more than numbers.
    import keras

    if isinstance(operation, keras.layers.Layer):
        return None
    return {key: value for key, value in vars(operation).items() if not key.startswith("_")}


def _defaults(kind: type) -> dict[str, Any]:
    defaults: dict[str, Any] = {}
    for ancestor in reversed(kind.__mro__):
        if ancestor is object or "__init__" not in vars(ancestor):
            continue
        for name, parameter in inspect.signature(ancestor.__init__).parameters.items():  # type: ignore[misc]
            if parameter.default is not inspect.Parameter.empty:
                defaults[name] = parameter.default
    return defaults
