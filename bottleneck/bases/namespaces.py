"""What code can reach through names: module globals, modules that it asks for attributes, modules that it imports.

Of a module of the user's the names are told that the code asks for; all of it where the module itself goes elsewhere
(an argument, a subscript, a dunder), or where names may be made at run time (`globals`, `eval`, `__getattr__`).
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from types import CodeType, ModuleType
from typing import Any

from bottleneck.bases import bytecode
from bottleneck.bases.bytecode import Asked
from bottleneck.bases.origin import of_module
from bottleneck.schema import canonical_json

#: Of a module: they say where it lies.
_PLACES = frozenset(
    {"__file__", "__name__", "__path__", "__spec__", "__loader__", "__package__", "__cached__"}
)
#: Of a module: nothing that it computes with.
_UNTOLD = _PLACES | {
    "__annotate__",
    "__annotations__",
    "__builtins__",
    "__conditional_annotations__",
    "__doc__",
    "__warningregistry__",
}
#: Whoever names one of these may reach any name of its module.
_ANY_NAME = frozenset({"eval", "exec", "globals", "locals", "vars"})
#: Whoever names one of these may reach any module whose name it holds.
_ANY_MODULE = frozenset({"__import__", "import_module", "modules", "reload"})

#: What a thing is told apart by: its id(), and what a module is asked for, or a word where it is told another way.
Key = int | tuple[int, Asked | str | None]


class Namespaces(ABC):
    """The part of `bottleneck.bases.code.CodeReader` that follows names.

    Attributes
    ----------
    code_count : int
        How many things were met that are not Keras' or TensorFlow's.
    """

    code_count: int

    @abstractmethod
    def told(self, value: Any) -> Any:
        """`value` as numbers, texts and lists."""

    @abstractmethod
    def _once(self, key: Key, value: Any, tell: Callable[[], Any]) -> Any: ...

    def _code(self, code: CodeType, names: dict[str, Any]) -> Any:
        asked, loose = bytecode.asked(code), bytecode.passed_on(code)

        def outside(name: str) -> Any:
            if name in _ANY_NAME and name not in names:
                return ["any name", name, self._namespace(names)]
            if name in _PLACES or name not in names:
                return ["name", name]
            value = names[name]
            if isinstance(value, ModuleType):
                return self._module(value, None if name in loose else asked)
            return ["is", self.told(value)]

        def constant(value: Any) -> Any:
            return (
                self._code(value, names)
                if isinstance(value, CodeType)
                else [type(value).__name__, self.told(value)]
            )

        lines = bytecode.instructions_of(code, constant, outside)
        for name, level, whole in bytecode.imports(code):
            lines.append(["import", self._imported("." * level + name, names, None if whole else asked)])
        lines.extend(self._named(code, names))
        return hashlib.sha256(canonical_json(lines)).hexdigest()

    def _named(self, code: CodeType, names: dict[str, Any]) -> Iterator[Any]:
        """What `code` may reach by names that it holds as texts, in its own module and in others."""
        if "__globals__" in code.co_names:
            yield ["any name", self._namespace(names)]
        if _ANY_MODULE.isdisjoint(code.co_names):
            return
        if "__name__" in code.co_names:
            yield ["any name", self._namespace(names)]
        for text in code.co_consts:
            module = self._found(text, names) if isinstance(text, str) and text.strip(".") else None
            if module is not None:
                yield ["named", self._module(module, None)]

    def _imported(self, name: str, names: dict[str, Any], asked: Asked | None) -> Any:
        module = self._found(name, names)
        return ["name", name] if module is None else self._module(module, asked)

    def _found(self, name: str, names: dict[str, Any]) -> ModuleType | None:
        try:
            return sys.modules.get(importlib.util.resolve_name(name, names.get("__package__")))
        except (ImportError, TypeError, AttributeError):
            return None

    def _namespace(self, names: dict[str, Any]) -> Any:
        """All of the module that a function lies in."""
        return self._once((id(names), None), names, lambda: self._opened_names(names, None))

    def _module(self, module: ModuleType, asked: Asked | None) -> Any:
        """A module: of the user's own the names in `asked`, there and in modules inside it; None for all."""
        origin = of_module(module.__name__)
        if origin.kind != "own":
            self.code_count += origin.kind == "package"
            return ["module", module.__name__, origin.version]
        if "__getattr__" in vars(module):  # it may give anything under any name
            asked = None
        return self._once((id(module), asked), module, lambda: self._opened_module(module, asked))

    def _opened_module(self, module: ModuleType, asked: Asked | None) -> Any:
        self.code_count += 1
        return ["module", self._opened_names(vars(module), asked)]

    def _opened_names(self, names: dict[str, Any], asked: Asked | None) -> Any:
        if asked is None:
            wanted = sorted(name for name in names if name not in _UNTOLD)
        else:
            wanted = sorted(name for name in asked.names & names.keys() if not name.startswith("__"))
        return [[name, self._in(names[name], name, asked)] for name in wanted]

    def _in(self, value: Any, name: str, asked: Asked | None) -> Any:
        if not isinstance(value, ModuleType):
            return self.told(value)
        return self._module(value, None if asked is None or name in asked.ends else asked)
