"""What lies behind objects that are code: functions, classes and their instances, told as plain data.

`Reader.told` follows everything that a piece of code can reach and that is not Keras', TensorFlow's, Python's or an
installed package's: instructions (`bottleneck.bases.bytecode`), values of closures, defaults and module globals,
methods and attributes of classes, attributes of instances. Of an installed package it tells name and version, of Keras
and TensorFlow the name alone. Names and places of definitions are left out: a function is what it does.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import math
import sys
from collections.abc import Callable, Iterable
from itertools import islice
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MappingProxyType,
    MethodType,
    ModuleType,
)
from typing import Any

from bottleneck.bases import bytecode
from bottleneck.bases.held import array_of, content_of, own_attributes, settings_of, state_of
from bottleneck.bases.origin import Origin, is_keras, of_module, origin_of
from bottleneck.errors import BaseError
from bottleneck.schema import canonical_json

#: Of a module: they say where it lies.
_PLACES = frozenset(
    {"__file__", "__name__", "__path__", "__spec__", "__loader__", "__package__", "__cached__"}
)

#: In a container of Python's or a package's: one that gives more may give them without end.
_MOST_ITEMS = 1 << 20

#: What an object or a module is told apart by: its id(), and of a module the names that it is asked for.
_Key = int | tuple[int, frozenset[str] | None]


class Reader:
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
        self._done: dict[_Key, tuple[Any, bool]] = {}
        self._open: list[_Key] = []
        self._held: list[Any] = []  # told apart by id(), which must not be reused

    def told(self, value: Any) -> Any:
        """`value` as numbers, texts and lists; what is large by a hash of that."""
        if value is None or isinstance(value, (bool, int, str)):
            return (
                value if type(value) in (type(None), bool, int, str) else [type(value).__name__, str(value)]
            )
        if isinstance(value, float):
            return value if math.isfinite(value) else ["float", repr(value)]
        if isinstance(value, (complex, bytes)) or value is Ellipsis or value is NotImplemented:
            return [type(value).__name__, repr(value)]
        if isinstance(value, ModuleType):
            return self._module(value, None)
        return self._once(id(value), value, lambda: self._opened(value))

    def _once(self, key: _Key, value: Any, tell: Callable[[], Any]) -> Any:
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
                told = self.told(value)
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
        held = self._attributes(own_attributes(operation))
        return ["layer", self.told(type(operation)), policy, held, self._graph(operation)]

    # ---------------------------------------------------------------------------------------------- by kind

    def _opened(self, value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return ["list", *map(self.told, value)]
        if isinstance(value, (dict, MappingProxyType)):
            pairs = [[self.told(key), self.told(item)] for key, item in value.items()]
            return ["dict", *sorted(pairs, key=canonical_json)]
        if isinstance(value, (set, frozenset)):
            return ["set", *sorted(map(self.told, value), key=canonical_json)]
        if isinstance(value, (staticmethod, classmethod)):
            return [type(value).__name__, self.told(value.__func__)]
        if isinstance(value, property):
            return ["property", *map(self.told, (value.fget, value.fset, value.fdel))]
        if isinstance(value, functools.partial):
            self.code_count += 1
            return ["partial", *map(self.told, (value.func, value.args, value.keywords))]
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
        notes = {name: note for name, note in vars(function).items() if not name.startswith("_")}
        return [
            "code",
            self._code(function.__code__, function.__globals__),
            *map(self.told, [*cells, *given, notes]),
        ]

    def _code(self, code: CodeType, names: dict[str, Any]) -> Any:
        asked = frozenset(bytecode.attributes(code))

        def outside(name: str) -> Any:
            if name in _PLACES or name not in names:
                return ["name", name]
            value = names[name]
            return self._module(value, asked) if isinstance(value, ModuleType) else ["is", self.told(value)]

        def constant(value: Any) -> Any:
            return (
                self._code(value, names)
                if isinstance(value, CodeType)
                else [type(value).__name__, self.told(value)]
            )

        lines = bytecode.plain(code, constant, outside)
        for name, level in bytecode.imports(code):
            lines.append(["import", self._imported("." * level + name, names, asked)])
        return hashlib.sha256(canonical_json(lines)).hexdigest()

    def _imported(self, name: str, names: dict[str, Any], asked: frozenset[str]) -> Any:
        try:
            module = sys.modules.get(importlib.util.resolve_name(name, names.get("__package__")))
        except (ImportError, TypeError, AttributeError):
            module = None
        return ["name", name] if module is None else self._module(module, asked)

    def _module(self, module: ModuleType, asked: frozenset[str] | None) -> Any:
        """A module: of the user's own the names in `asked`, there and in modules inside it; None for all."""
        origin = of_module(module.__name__)
        if origin.kind != "own":
            self.code_count += origin.kind == "package"
            return ["module", module.__name__, origin.version]
        return self._once((id(module), asked), module, lambda: self._opened_module(module, asked))

    def _opened_module(self, module: ModuleType, asked: frozenset[str] | None) -> Any:
        self.code_count += 1
        wanted = sorted(vars(module) if asked is None else asked & vars(module).keys())
        return [
            "module",
            [[name, self._in(module, name, asked)] for name in wanted if not name.startswith("__")],
        ]

    def _in(self, module: ModuleType, name: str, asked: frozenset[str] | None) -> Any:
        value = vars(module)[name]
        return self._module(value, asked) if isinstance(value, ModuleType) else self.told(value)

    def _class(self, kind: type) -> Any:
        origin = origin_of(kind)
        if origin.kind != "own":
            return ["class", *self._from(kind), kind.__qualname__]
        self.code_count += 1
        parts = {
            name: value
            for name, value in vars(kind).items()
            if not (name.startswith("__") and not _is_method(value)) and name != "_abc_impl"
        }
        return ["own class", [self.told(base) for base in kind.__bases__], self._attributes(parts)]

    def _instance(self, value: Any) -> Any:
        import keras

        if isinstance(value, keras.Operation):
            return self._stock(value) if is_keras(type(value)) else self.operation(value)
        kind = type(value)
        if hasattr(value, "python_function"):  # of `tf.function`
            return ["traced", self.told(value.python_function)]
        if isinstance(value, keras.Variable) and id(value) in self._weights:
            return ["weight", self._weights[id(value)]]
        if hasattr(value, "__array__") and not isinstance(value, keras.KerasTensor):
            # A symbolic tensor has no bytes, and an array of objects gives none.
            with contextlib.suppress(Exception):
                return ["array", *self.array(value)]
        origin = origin_of(kind)
        if origin.kind == "stock":
            return [
                "stock",
                kind.__qualname__,
                self.told(settings_of(value)),
                self.code_in(state_of(value).items()),
            ]
        if origin.kind == "own":
            return ["instance", self.told(kind), self._attributes(state_of(value))]
        return self._foreign(value, origin)

    def _foreign(self, value: Any, origin: Origin) -> Any:
        """An object of a package's: by what it is pickled as."""
        name = [*self._from(type(value)), type(value).__qualname__]
        if hasattr(value, "__wrapped__"):
            return ["wrapped", *name, self.told(value.__wrapped__)]
        if callable(value) and hasattr(value, "__name__"):
            return ["callable", *name, str(value.__name__)]  # of NumPy, for one
        try:
            parts = value.__reduce_ex__(4)
        except Exception:  # a lock, a stream: what it does cannot be told, and the canary stands for it
            return ["opaque", *name]
        if isinstance(parts, str):
            return ["object", *name, parts]
        items = [list(islice(part, _MOST_ITEMS)) for part in parts[3:5] if part is not None]
        if any(len(part) == _MOST_ITEMS for part in items):
            raise ValueError(f"it gives {_MOST_ITEMS:,} items or more")
        return ["object", *name, self.told([*parts[:3], *items])]

    def _attributes(self, values: dict[str, Any]) -> list[Any]:
        return [[name, self.told(values[name])] for name in sorted(values)]

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


def _is_method(value: Any) -> bool:
    return callable(value) or (
        hasattr(type(value), "__get__") and not isinstance(value, GetSetDescriptorType)
    )
