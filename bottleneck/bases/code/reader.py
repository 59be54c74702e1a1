"""Describe functions, classes and their instances as plain data.

`CodeReader.describe` follows all code of the user that a piece of code can reach: instructions (`bytecode`), values of
closures, defaults and module globals, methods and attributes of classes, attributes of instances. An installed package
is described by name and version, Keras and TensorFlow by name alone. Names and places of definitions are left out: a
function is what it does.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
from collections.abc import Callable, Iterable
from types import BuiltinFunctionType, FunctionType, MappingProxyType, MethodType, ModuleType, NoneType
from typing import Any

from bottleneck.bases.code.containers import TRACKED, Containers
from bottleneck.bases.code.contents import (
    array_of,
    built_in,
    content_of,
    idle_attributes,
    instance_state,
    settings_of,
    special_attributes,
)
from bottleneck.bases.code.namespaces import Key
from bottleneck.bases.code.origin import Origin, is_keras, origin_of
from bottleneck.errors import BaseError
from bottleneck.schema import canonical_json

#: Of a class: what it is made of and written as, not what it does.
# fmt: off
_OF_CLASSES = frozenset((
    "__abstractmethods__", "__annotate__", "__annotate_func__", "__annotations__", "__annotations_cache__",
    "__classcell__", "__dict__", "__doc__", "__firstlineno__", "__module__", "__orig_bases__", "__parameters__",
    "__qualname__", "__signature__", "__slots__", "__static_attributes__", "__type_params__", "__weakref__",
    "__slotnames__",  # left there by pickling an instance
))
# fmt: on
#: What libraries note in a class about its own text, annotations included.
_NOTES = ("__attrs", "__dataclass", "__non_callable", "__protocol", "__pydantic")


class CodeReader(Containers):
    """Describes objects as plain data, the same for equal behaviour.

    Parameters
    ----------
    operation_of_keras : callable
        Describes a layer or an operation that Keras defines.
    graph : callable
        Describes the graph inside a layer; None where it has none.

    Attributes
    ----------
    code_count : int
        Number of objects so far that are neither Keras nor TensorFlow.
    """

    def __init__(self, operation_of_keras: Callable[[Any], Any], graph: Callable[[Any], Any]) -> None:
        self.code_count = 0
        self._operation_of_keras, self._graph = operation_of_keras, graph
        self._weights: dict[int, int] = {}
        self._arrays: dict[int, list[Any]] = {}
        self._done: dict[Key, tuple[Any, bool]] = {}
        self._open: list[Key] = []
        self._kept_alive: list[Any] = []  # keys are id()s, which must not be reused

    def describe(self, value: Any) -> Any:
        """Describe `value` as numbers, texts and lists, or a hash of them."""
        kind = type(value)  # exactly: a class derived from one of these may do anything
        if value is None or kind in (bool, int, str):
            return value
        if kind is float:
            return value if math.isfinite(value) else ["float", repr(value)]
        if kind in (complex, bytes) or value is Ellipsis or value is NotImplemented:
            return [kind.__name__, repr(value)]
        if isinstance(value, ModuleType):
            return self._module(value, None)
        return self._once(id(value), value, lambda: self._opened(value))

    def _once(self, key: Key, value: Any, describe: Callable[[], Any]) -> Any:
        """Describe `value` once; hash what is large."""
        if key in self._done:
            result, is_code = self._done[key]
            self.code_count += is_code
            return result
        if key in self._open:
            return ["again", len(self._open) - self._open.index(key)]
        self._open.append(key)
        self._kept_alive.append(value)
        before = self.code_count
        try:
            result = describe()
        except BaseError:
            raise
        except Exception as error:  # attributes of a user's objects may do anything
            raise BaseError(
                f"the base holds a {type(value).__qualname__} that cannot be looked into ({type(error).__name__}: "
                f"{error}), so it cannot be identified: keep plain numbers, arrays, functions and layers in it"
            ) from error
        finally:
            self._open.pop()
        text = canonical_json(result)
        if len(text) > 200:
            result = hashlib.sha256(text).hexdigest()
        self._done[key] = result, self.code_count > before
        return result

    def array(self, value: Any) -> list[Any]:
        """Hash each array once; nested layers share weights."""
        if id(value) not in self._arrays:
            self._kept_alive.append(value)
            self._arrays[id(value)] = array_of(value)
        return self._arrays[id(value)]

    def code_in(self, attributes: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        """Describe the `attributes` of a Keras object that hold other code."""
        described = {}
        for name, value in attributes:
            if self._may_hold(value):
                before = self.code_count
                result = self._settled(value)
                if self.code_count > before:
                    described[name] = result
        return described

    def operation(self, operation: Any) -> list[Any]:
        """Describe an operation of another class than Keras', with its contents."""
        for number, weight in enumerate(getattr(operation, "weights", ())):
            # Their bytes are described with the operation; here it matters which of them an attribute is.
            self._weights.setdefault(id(weight), number)
        self.code_count += 1
        policy = getattr(getattr(operation, "dtype_policy", None), "name", "float32")
        attributes = special_attributes(operation)
        describe = self._settled
        if not is_keras(type(operation)):
            attributes, describe = {**attributes, **self._idle(operation)}, self._saved
        content = [[name, describe(attributes[name])] for name in sorted(attributes)]
        return ["layer", self.describe(type(operation)), policy, content, self._graph(operation)]

    def _idle(self, operation: Any) -> dict[str, Any]:
        """Return attributes named as initializers or constraints that are neither."""
        return {
            name: value
            for name, value in idle_attributes(operation).items()
            if not isinstance(value, (str, NoneType)) and origin_of(_code_of(value)).kind != "keras"
        }

    def _opened(self, value: Any) -> Any:
        if type(value) in (list, tuple, dict, set, frozenset, MappingProxyType):
            return self._container(value)
        if type(value).__name__ in TRACKED and origin_of(type(value)).kind == "keras":
            return self._stand_in(value)
        if built_in(value):
            return self._derived(value)
        if isinstance(value, (staticmethod, classmethod)):
            return [type(value).__name__, self.describe(value.__func__)]
        if isinstance(value, property):
            return [
                "property",
                *map(self.describe, (value.fget, value.fset, value.fdel)),
                *self._more(value, property),
            ]
        if isinstance(value, functools.partial):
            self.code_count += 1
            parts = map(self.describe, (value.func, value.args, value.keywords))
            return ["partial", *parts, *self._more(value, functools.partial)]
        if isinstance(value, MethodType):
            return ["method", self.describe(value.__func__), self.describe(value.__self__)]
        if isinstance(value, FunctionType):
            return self._function(value)
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, BuiltinFunctionType):
            owner = getattr(value, "__self__", None)
            bound = [] if owner is None or isinstance(owner, ModuleType) else [self.describe(owner)]
            return ["built in", *self._from(value), value.__name__, *bound]
        return self._instance(value)

    def _from(self, value: Any) -> list[str]:
        origin = origin_of(value)
        self.code_count += origin.kind != "keras"
        return [origin.name, origin.version] if origin.kind == "package" else [origin.name]

    def _function(self, function: FunctionType) -> Any:
        origin = origin_of(function)
        cells = [content_of(cell) for cell in function.__closure__ or ()]
        given = [function.__defaults__, function.__kwdefaults__]
        if origin.kind != "user":
            name = [*self._from(function), function.__qualname__]
            # A decorator of Keras or of a package may hold a user's function.
            values = ((str(number), value) for number, value in enumerate([*cells, *given]))
            return ["function", *name, self.code_in(values)]
        self.code_count += 1
        notes = {
            name: note
            for name, note in vars(function).items()
            if not name.startswith(("__", "_api_export", "_keras_", "_tf_"))
        }
        return [
            "code",
            self._code(function.__code__, function.__globals__),
            *map(self.describe, [*cells, *given]),
            self._attributes(notes),
        ]

    def _class(self, kind: type) -> Any:
        origin = origin_of(kind)
        if origin.kind != "user":
            return ["class", *self._from(kind), kind.__qualname__]
        self.code_count += 1
        parts = {
            name: value
            for name, value in vars(kind).items()
            if name not in _OF_CLASSES and not name.startswith(_NOTES) and name != "_abc_impl"
        }
        meta = [self.describe(type(kind))] if origin_of(type(kind)).kind == "user" else []
        return ["own class", [self.describe(base) for base in kind.__bases__], self._attributes(parts), *meta]

    def _instance(self, value: Any) -> Any:
        import keras

        if isinstance(value, keras.Operation):
            return self._operation_of_keras(value) if is_keras(type(value)) else self.operation(value)
        kind = type(value)
        if isinstance(value, keras.Variable) and id(value) in self._weights:
            return ["weight", self._weights[id(value)]]
        origin = origin_of(kind)
        if origin.kind == "user":
            # A variable's state has names and places in it.
            state = {} if isinstance(value, keras.Variable) else instance_state(value)
            return ["instance", self.describe(kind), self._attributes(state), self._numbers(value)]
        if hasattr(value, "python_function"):  # of `tf.function`
            return ["traced", self.describe(value.python_function)]
        numbers = self._numbers(value)
        if numbers is not None:
            return ["array", *numbers]
        if origin.kind == "keras":
            return [
                "stock",
                kind.__qualname__,
                self._settled(settings_of(value)),
                self.code_in(instance_state(value).items()),
            ]
        return self._foreign(value, origin)

    def _numbers(self, value: Any) -> list[Any] | None:
        import keras
        import numpy as np

        # A symbolic tensor has no bytes, an array of objects gives none, and a masked one's are not all of it.
        if hasattr(type(value), "__array__") and not isinstance(
            value, (keras.KerasTensor, np.ma.MaskedArray)
        ):
            with contextlib.suppress(Exception):
                return self.array(value)
        return None

    def _foreign(self, value: Any, origin: Origin) -> Any:
        """Describe an object of a package by what it is pickled as."""
        name = [*self._from(type(value)), type(value).__qualname__]
        if hasattr(value, "__wrapped__"):
            return ["wrapped", *name, self.describe(value.__wrapped__)]
        if callable(value) and hasattr(value, "__name__"):
            code = self.code_in(instance_state(value).items())  # `numpy.vectorize` holds a function
            return ["callable", *name, str(value.__name__), code]
        return ["object", *name, self._pickled(value)]

    def _may_hold(self, value: Any) -> bool:
        """Whether an attribute of a Keras object may hold code, cheaply."""
        import keras

        if isinstance(value, (list, tuple, set)):
            return any(map(self._may_hold, value))
        if isinstance(value, dict):
            return any(map(self._may_hold, value.values()))
        if isinstance(value, (FunctionType, MethodType, functools.partial, keras.Operation)):
            return True
        if isinstance(value, (type, keras.Variable, ModuleType)) or value is None:
            return False
        return (callable(value) and origin_of(type(value)).kind in ("user", "package")) or hasattr(
            value, "python_function"
        )


def _code_of(value: Any) -> Any:
    return value if isinstance(value, (FunctionType, type)) else type(value)
