"""Describe what code reaches through names: globals, modules and imports.

Of a user's module, the names that the code asks for are described. All of it is where the module itself is passed on
(an argument, a subscript, a dunder), or where names may be computed at run time (`globals`, `eval`, `__getattr__`).
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from types import CodeType, ModuleType
from typing import Any

from bottleneck.bases.code import bytecode
from bottleneck.bases.code.bytecode import Asked
from bottleneck.bases.code.origin import of_module
from bottleneck.schema import canonical_json

#: Of a module: they say where it lies.
_PLACES = frozenset(
    {"__file__", "__name__", "__path__", "__spec__", "__loader__", "__package__", "__cached__"}
)
#: Of a module: nothing that it computes with.
_IGNORED = _PLACES | {
    "__annotate__",
    "__annotations__",
    "__builtins__",
    "__conditional_annotations__",
    "__doc__",
}
_IGNORED |= {"__warningregistry__"}
#: Whoever names one of these may reach any name of its module.
_ANY_NAME = frozenset({"eval", "exec", "globals", "locals", "vars"})
#: Whoever names one of these may reach any module whose name it holds.
_ANY_MODULE = frozenset({"__import__", "import_module", "modules", "reload"})

#: Identifies a description: an id(), with what a module is asked for, or a word for another kind of description.
Key = int | tuple[int, Asked | str | None]


class Namespaces(ABC):
    """The part of `CodeReader` that follows names.

    Attributes
    ----------
    code_count : int
        Number of objects so far that are neither Keras nor TensorFlow.
    """

    code_count: int

    @abstractmethod
    def describe(self, value: Any) -> Any:
        """Describe `value` as numbers, texts and lists."""

    @abstractmethod
    def _once(self, key: Key, value: Any, describe: Callable[[], Any]) -> Any: ...

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
            return ["is", self.describe(value)]

        def constant(value: Any) -> Any:
            return (
                self._code(value, names)
                if isinstance(value, CodeType)
                else [type(value).__name__, self.describe(value)]
            )

        lines = bytecode.instructions_of(code, constant, outside)
        for name, level, whole in bytecode.imports(code):
            lines.append(["import", self._imported("." * level + name, names, None if whole else asked)])
        lines.extend(self._named(code, names))
        return hashlib.sha256(canonical_json(lines)).hexdigest()

    def _named(self, code: CodeType, names: dict[str, Any]) -> Iterator[Any]:
        """Describe what `code` may reach by names in its strings."""
        if "__globals__" in code.co_names:
            yield ["any name", self._namespace(names)]
        if _ANY_MODULE.isdisjoint(code.co_names):
            return
        if "__name__" in code.co_names:
            yield ["any name", self._namespace(names)]
        for text in code.co_consts:
            module = self._imported_module(text, names) if isinstance(text, str) and text.strip(".") else None
            if module is not None:
                yield ["named", self._module(module, None)]

    def _imported(self, name: str, names: dict[str, Any], asked: Asked | None) -> Any:
        module = self._imported_module(name, names)
        return ["name", name] if module is None else self._module(module, asked)

    def _imported_module(self, name: str, names: dict[str, Any]) -> ModuleType | None:
        try:
            return sys.modules.get(importlib.util.resolve_name(name, names.get("__package__")))
        except (ImportError, TypeError, AttributeError):
            return None

    def _namespace(self, names: dict[str, Any]) -> Any:
        return self._once((id(names), None), names, lambda: self._opened_names(names, None))

    def _module(self, module: ModuleType, asked: Asked | None) -> Any:
        """Describe a module; of a user's, the names in `asked` (None: all)."""
        origin = of_module(module.__name__)
        if origin.kind != "user":
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
            wanted = sorted(name for name in names if name not in _IGNORED)
        else:
            wanted = sorted(name for name in asked.names & names.keys() if not name.startswith("__"))
        return [[name, self._in(names[name], name, asked)] for name in wanted]

    def _in(self, value: Any, name: str, asked: Asked | None) -> Any:
        if not isinstance(value, ModuleType):
            return self.describe(value)
        return self._module(value, None if asked is None or name in asked.ends else asked)
