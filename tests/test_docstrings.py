"""Every example in a docstring runs, and every public function of a stage has a docstring with its parts."""

from __future__ import annotations

import doctest
import importlib
import inspect
from pathlib import Path

import pytest

import bottleneck

ROOT = Path(__file__).parent.parent / "bottleneck"

#: Modules whose examples (or whose import) need TensorFlow.
KERAS = {f"pixels/contract/{name}.py" for name in ("decode", "fields", "formats", "geometry")}


def modules() -> list[object]:
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        if ">>>" in path.read_text(encoding="utf-8"):
            name = str(path.relative_to(ROOT))
            found.append(pytest.param(path, id=name, marks=[pytest.mark.keras] if name in KERAS else []))
    return found


@pytest.mark.parametrize("path", modules())
def test_examples_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    module = importlib.import_module(".".join(part for part in parts if part != "__init__"))
    # Examples that need a base and images say SKIP: the suites of those stages run the same calls on real ones.
    assert any(test.examples for test in doctest.DocTestFinder().find(module))
    result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert not result.failed


@pytest.mark.parametrize("name", [name for name, home in bottleneck._FACE.items() if "pipeline" in home])
def test_public_functions_of_the_api_name_their_parameters(name: str) -> None:
    function = getattr(bottleneck, name)
    text = inspect.getdoc(function) or ""
    assert text, name
    if len(inspect.signature(function).parameters) > 2:
        assert "Parameters" in text or "Returns" in text, name
