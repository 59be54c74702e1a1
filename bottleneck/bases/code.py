"""What lies behind objects that are code: functions, classes and their instances, told as plain data.

`CodeReader.told` follows everything that a piece of code can reach and that is not Keras', TensorFlow's, Python's or an
installed package's: instructions (`bottleneck.bases.bytecode`), values of closures, defaults and module globals,
methods and attributes of classes, attributes of instances. Of an installed package it tells name and version, of Keras
and TensorFlow the name alone. Names and places of definitions are left out: a function is what it does.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
from collections.abc import Callable, Iterable
from types import (
    BuiltinFunctionType,
    FunctionType,
    MappingProxyType,
    MethodType,
    ModuleType,
    NoneType,
)
from typing import Any

from bottleneck.bases.containers import TRACKED, Containers
from bottleneck.bases.held import (
    array_of,
    built_in,
    content_of,
    idle_attributes,
    instance_state,
    own_attributes,
    settings_of,
)
from bottleneck.bases.namespaces import Key
from bottleneck.bases.origin import Origin, is_keras, origin_of
from bottleneck.errors import BaseError
from bottleneck.schema import canonical_json

#: Of a class: what it is made of and written as, not what it does.
_OF_CLASSES = frozenset(
    {
        "__abstractmethods__",
        "__annotate__",
        "__annotate_func__",
        "__annotations__",
        "__annotations_cache__",
        "__classcell__",
        "__dict__",
        "__doc__",
        "__firstlineno__",
        "__module__",
        "__orig_bases__",
        "__parameters__",
        "__qualname__",
        "__signature__",
        "__slotnames__",  # left there by pickling an instance
        "__slots__",
        "__static_attributes__",
        "__type_params__",
        "__weakref__",
    }
)
#: What libraries note in a class about its own text, annotations included.
_NOTES = ("__attrs", "__dataclass", "__non_callable", "__protocol", "__pydantic")


class CodeReader(Containers):
    """Tells objects as plain data, the same data for what does the same.

    Parameters
    ----------
    stock : callable
        Tells a layer or an operation of Keras' own.
    graph : callable
        Tells the graph inside a layer; None where it has none.

    Attributes
    ----------
    code_count : int
        How many things were met that are not Keras' or TensorFlow's.
    """

    def __init__(self, stock: Callable[[Any], Any], graph: Callable[[Any], Any]) -> None:
        self.code_count = 0
        self._stock, self._graph = stock, graph
        self._weights: dict[int, int] = {}
        self._arrays: dict[int, list[Any]] = {}
        self._done: dict[Key, tuple[Any, bool]] = {}
        self._open: list[Key] = []
        self._held: list[Any] = []  # told apart by id(), which must not be reused

    def told(self, value: Any) -> Any:
        """`value` as numbers, texts and lists; what is large by a hash of that."""
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

    def _once(self, key: Key, value: Any, tell: Callable[[], Any]) -> Any:
        """What `tell` says of `value`, asked once; what is large as a hash."""
        if key in self._done:
            told, is_code = self._done[key]
            self.code_count += is_code
            return told
        if key in self._open:
            return ["again", len(self._open) - self._open.index(key)]
        self._open.append(key)
        self._held.append(value)
        before = self.code_count
        try:
            told = tell()
        except BaseError:
            raise
        except Exception as error:  # attributes of a user's objects may do anything
            raise BaseError(
                f"the base holds a {type(value).__qualname__} that cannot be looked into ({type(error).__name__}: "
                f"{error}), so it cannot be identified: keep plain numbers, arrays, functions and layers in it"
            ) from error
        finally:
            self._open.pop()
        text = canonical_json(told)
        if len(text) > 200:
            told = hashlib.sha256(text).hexdigest()
        self._done[key] = told, self.code_count > before
        return told

    def array(self, value: Any) -> list[Any]:
        """`array_of`, once for each: a layer's weights are also those of the layers in it."""
        if id(value) not in self._arrays:
            self._held.append(value)
            self._arrays[id(value)] = array_of(value)
        return self._arrays[id(value)]

    def code_in(self, attributes: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        """Those of a stock object's `attributes` that hold code which is not stock, told."""
        found = {}
        for name, value in attributes:
            if self._may_hold(value):
                before = self.code_count
                told = self._settled(value)
                if self.code_count > before:
                    found[name] = told
        return found

    def operation(self, operation: Any) -> list[Any]:
        """A layer or an operation whose class is not Keras' own: its class, and all that it holds."""
        for number, weight in enumerate(getattr(operation, "weights", ())):
            # Their bytes are told with the operation; here it matters which of them an attribute is.
            self._weights.setdefault(id(weight), number)
        self.code_count += 1
        policy = getattr(getattr(operation, "dtype_policy", None), "name", "float32")
        held: Any = own_attributes(operation)
        tell = self._settled
        if not is_keras(type(operation)):
            held, tell = {**held, **self._idle(operation)}, self._saved
        held = [[name, tell(held[name])] for name in sorted(held)]
        return ["layer", self.told(type(operation)), policy, held, self._graph(operation)]

    def _idle(self, operation: Any) -> dict[str, Any]:
        """What goes by an initializer's or a constraint's name in a layer of the user's and is no stock one."""
        return {
            name: value
            for name, value in idle_attributes(operation).items()
            if not isinstance(value, (str, NoneType)) and origin_of(_code_of(value)).kind != "stock"
        }

    # ---------------------------------------------------------------------------------------------- by kind

    def _opened(self, value: Any) -> Any:
        if type(value) in (list, tuple, dict, set, frozenset, MappingProxyType):
            return self._container(value)
        if type(value).__name__ in TRACKED and origin_of(type(value)).kind == "stock":
            return self._stand_in(value)
        if built_in(value):
            return self._derived(value)
        if isinstance(value, (staticmethod, classmethod)):
            return [type(value).__name__, self.told(value.__func__)]
        if isinstance(value, property):
            return [
                "property",
                *map(self.told, (value.fget, value.fset, value.fdel)),
                *self._more(value, property),
            ]
        if isinstance(value, functools.partial):
            self.code_count += 1
            parts = map(self.told, (value.func, value.args, value.keywords))
            return ["partial", *parts, *self._more(value, functools.partial)]
        if isinstance(value, MethodType):
            return ["method", self.told(value.__func__), self.told(value.__self__)]
        if isinstance(value, FunctionType):
            return self._function(value)
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, BuiltinFunctionType):
            owner = getattr(value, "__self__", None)
            bound = [] if owner is None or isinstance(owner, ModuleType) else [self.told(owner)]
            return ["built in", *self._from(value), value.__name__, *bound]
        return self._instance(value)

    def _from(self, value: Any) -> list[str]:
        origin = origin_of(value)
        self.code_count += origin.kind != "stock"
        return [origin.name, origin.version] if origin.kind == "package" else [origin.name]

    def _function(self, function: FunctionType) -> Any:
        origin = origin_of(function)
        cells = [content_of(cell) for cell in function.__closure__ or ()]
        given = [function.__defaults__, function.__kwdefaults__]
        if origin.kind != "own":
            name = [*self._from(function), function.__qualname__]
            # A decorator of Keras' or of another package may hold a function of the user's.
            held = ((str(number), value) for number, value in enumerate([*cells, *given]))
            return ["function", *name, self.code_in(held)]
        self.code_count += 1
        notes = {
            name: note
            for name, note in vars(function).items()
            if not name.startswith(("__", "_api_export", "_keras_", "_tf_"))
        }
        return [
            "code",
            self._code(function.__code__, function.__globals__),
            *map(self.told, [*cells, *given]),
            self._attributes(notes),
        ]

    def _class(self, kind: type) -> Any:
        origin = origin_of(kind)
        if origin.kind != "own":
            return ["class", *self._from(kind), kind.__qualname__]
        self.code_count += 1
        parts = {
            name: value
            for name, value in vars(kind).items()
            if name not in _OF_CLASSES and not name.startswith(_NOTES) and name != "_abc_impl"
        }
        made = [self.told(type(kind))] if origin_of(type(kind)).kind == "own" else []
        return ["own class", [self.told(base) for base in kind.__bases__], self._attributes(parts), *made]

    def _instance(self, value: Any) -> Any:
        import keras

        if isinstance(value, keras.Operation):
            return self._stock(value) if is_keras(type(value)) else self.operation(value)
        kind = type(value)
        if isinstance(value, keras.Variable) and id(value) in self._weights:
            return ["weight", self._weights[id(value)]]
        origin = origin_of(kind)
        if origin.kind == "own":
            # A variable's state has names and places in it.
            state = {} if isinstance(value, keras.Variable) else instance_state(value)
            return ["instance", self.told(kind), self._attributes(state), self._numbers(value)]
        if hasattr(value, "python_function"):  # of `tf.function`
            return ["traced", self.told(value.python_function)]
        numbers = self._numbers(value)
        if numbers is not None:
            return ["array", *numbers]
        if origin.kind == "stock":
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
        """An object of a package's: by what it is pickled as."""
        name = [*self._from(type(value)), type(value).__qualname__]
        if hasattr(value, "__wrapped__"):
            return ["wrapped", *name, self.told(value.__wrapped__)]
        if callable(value) and hasattr(value, "__name__"):
            held = self.code_in(instance_state(value).items())  # of NumPy's, `vectorize` holds a function
            return ["callable", *name, str(value.__name__), held]
        return ["object", *name, self._pickled(value)]

    def _may_hold(self, value: Any) -> bool:
        """Whether code may hang on an attribute of a stock object: what cannot is passed over, cheaply."""
        import keras

        if isinstance(value, (list, tuple, set)):
            return any(map(self._may_hold, value))
        if isinstance(value, dict):
            return any(map(self._may_hold, value.values()))
        if isinstance(value, (FunctionType, MethodType, functools.partial, keras.Operation)):
            return True
        if isinstance(value, (type, keras.Variable, ModuleType)) or value is None:
            return False
        return (callable(value) and origin_of(type(value)).kind in ("own", "package")) or hasattr(
            value, "python_function"
        )


def _code_of(value: Any) -> Any:
    return value if isinstance(value, (FunctionType, type)) else type(value)
