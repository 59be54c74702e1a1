from __future__ import annotations

import itertools
import types
from typing import Any

import pytest

from bottleneck.bases.code.reader import CodeReader
from bottleneck.errors import BaseError


def reader() -> CodeReader:
    return CodeReader(operation_of_keras=repr, graph=repr)


def test_modules_that_import_each_other_are_each_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = [types.ModuleType(f"mine_{number}") for number in range(8)]
    for module in modules:
        vars(module).update({other.__name__: other for other in modules})
    opened: list[str] = []
    tell = CodeReader._opened_module

    def counted(self: CodeReader, module: types.ModuleType, asked: Any) -> Any:
        opened.append(module.__name__)
        return tell(self, module, asked)

    monkeypatch.setattr(CodeReader, "_opened_module", counted)
    reader().describe(modules[0])
    assert sorted(opened) == [module.__name__ for module in modules]


@pytest.mark.keras
def test_items_without_end_are_an_error() -> None:
    class Endless:
        def __reduce_ex__(self, _: Any) -> Any:
            return list, (), None, itertools.count()

    Endless.__module__ = "json"
    with pytest.raises(BaseError, match=r"Endless that cannot be looked into.*items or more"):
        reader().describe(Endless())
