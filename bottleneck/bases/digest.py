"""What makes one base the same as another: a digest of its graph up to the cut, and of every weight's bytes.

In it, step by step (`bottleneck.bases.graph.walk`): the operation's class under the name Keras exports it by, its
configuration, its call arguments, which earlier steps feed it, and shape, dtype and bytes of its weights.

Not in it: names; configuration at the constructor's default; what cannot change inference (`trainable`, initializers,
regularizers, constraints, dropout, seeds, BatchNorm momentum); layers that pass their input on in inference (dropout
and noise layers, `Identity`); nesting; the image's height and width, which are the pixel contract's.

A configuration says nothing of code: of a function given as activation, of what a custom layer's `call` does, of what
it keeps outside `get_config`. An operation with code in it (its class, or anything that it holds, is not Keras' own) is
told by what can be seen of the objects themselves (`bottleneck.bases.code`): instructions, constants, closures, module
globals, attributes. Only the digest of a base with code in it has the number of these rules in it, so that no base of
stock layers changes its name with them. Bytecode and not source text, since it is what runs, is there for lambdas too,
and has no comments; the price is that another minor version of Python is another base of this kind. What cannot be seen
(a library in C, a file that `call` reads) is left to the canary, which a base that may be code computes at every run.
"""

from __future__ import annotations

import hashlib
import inspect
from typing import Any

from bottleneck.bases.code import CodeReader
from bottleneck.bases.graph import IMAGE, Network, Ref, Step, network_of, steps_of, walk
from bottleneck.bases.held import array_of, files_of, own_attributes
from bottleneck.bases.origin import is_keras
from bottleneck.bases.training_only import PASS_THROUGH
from bottleneck.errors import BaseError
from bottleneck.schema import canonical_json

#: Part of the digest and of every remembered one: raise it when the rules below change.
DIGEST_VERSION = 1

#: Part of the digests of bases with code in them alone: raise it when what is told of code changes.
CODE_VERSION = 1

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
        A layer holds what cannot be identified.
    """
    network = walk(model)
    teller = _Teller()
    lines = teller.lines(network)
    head = b"bottleneck base %d\n" % DIGEST_VERSION
    if teller.reader.code_count:
        head = b"bottleneck base %d with code %d\n" % (DIGEST_VERSION, CODE_VERSION)
    total = hashlib.sha256(head)
    total.update(canonical_json([str(network.image.dtype), network.image.shape[-1]]) + b"\n")
    total.update(b"\n".join(lines))
    return total.hexdigest()


class _Teller:
    """Tells networks and operations; `reader` the code in them."""

    def __init__(self) -> None:
        self.reader = CodeReader(self.stock, self.graph)

    def lines(self, network: Network) -> list[bytes]:
        """A line for each step that computes something, and one for the output."""
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
        """Class, configuration and weights; of one with code in it, all that it holds instead of a configuration."""
        weights = [self.reader.array(weight) for weight in getattr(operation, "weights", ())]
        if self.is_code(operation):
            return [self.held(operation), weights]
        return [_class_name(operation), self.config(operation), weights]

    def stock(self, operation: Any) -> Any:
        """As `operation`, of one of Keras' own inside code; its weights are those of what is around it."""
        graph = self.graph(operation)
        if graph is not None:
            return ["network", graph]
        if self.is_code(operation):
            return self.held(operation)
        if type(operation).__name__ in PASS_THROUGH:
            return _class_name(operation)
        weights = [self.reader.told(weight) for weight in getattr(operation, "weights", ())]
        return [_class_name(operation), self.config(operation), weights]

    def is_code(self, operation: Any) -> bool:
        """Whether its class, or something in it, is not Keras' own, or it runs a file."""
        if not is_keras(type(operation)) or type(operation).__name__ == "TFSMLayer":
            return True
        return bool(self.reader.code_in(own_attributes(operation).items()))

    def held(self, operation: Any) -> Any:
        """All that an operation with code in it holds."""
        if type(operation).__name__ != "TFSMLayer" or not is_keras(type(operation)):
            return self.reader.operation(operation)
        self.reader.code_count += 1
        return ["files", files_of(operation), operation.call_endpoint]

    def graph(self, operation: Any) -> Any:
        """What the graph inside a nested network does; None where there is none with one input and one output."""
        root = network_of(operation) or getattr(operation, "_functional", None)
        if root is None or len(root._inputs) != 1 or len(root._outputs) != 1:
            return None
        return hashlib.sha256(b"\n".join(self.lines(steps_of(root)))).hexdigest()

    def config(self, operation: Any) -> Any:
        """Configuration besides defaults and what cannot change inference."""
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
        """Whether what `default` would be told as is `normal`."""
        try:
            return bool(normal == self.normal(default, operation))
        except BaseError:
            return False

    def arguments(self, step: Step, moved: _Moved) -> Any:
        """What the step is called with, by the parameters' names."""
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
        """A dictionary of a configuration, which may be a Keras object as it is saved."""
        if value.get("class_name") == "DTypePolicy":
            return self.normal(value["config"]["name"], operation)
        if value.get("class_name") in PASS_THROUGH:
            return [value["class_name"]]  # inside a wrapper: its rates do not matter there either
        return {str(k): self.normal(v, operation, moved) for k, v in value.items() if not _is_ignored(str(k))}


def passes_through(step: Step, network: Network) -> bool:
    """Whether `step` hands its one input on unchanged in inference, dtype included."""
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


# ---------------------------------------------------------------------------------------------- one operation


def _class_name(operation: Any) -> list[str]:
    # Modules below keras.src move between versions; the exported name is Keras' promise.
    from keras.src.api_export import get_name_from_symbol

    kind = type(operation)
    return [get_name_from_symbol(kind) or f"keras:{kind.__name__}"]


def _is_ignored(key: str) -> bool:
    return key in _IGNORED or key.endswith(_IGNORED_ENDS)


def _attributes(operation: Any) -> dict[str, Any] | None:
    """Plain attributes of a stateless operation that takes more than numbers (Keras writes no config for those)."""
    import keras

    if isinstance(operation, keras.layers.Layer):
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
