from __future__ import annotations

import functools
import json
import sys
import types
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from bottleneck.bases.code import origin
from bottleneck.bases.code.origin import Origin, of_module, origin_of
from tests.fakes import FakeForward


def test_python_packages_and_the_users_own_code_are_told_apart() -> None:
    assert origin_of(json.dumps).kind == origin_of(dict).kind == origin_of(len).kind == "python"
    assert origin_of(np.linspace) == Origin("package", "numpy", np.__version__)
    assert origin_of(FakeForward).kind == origin_of(lambda: None).kind == "user"


def test_what_runs_as_a_program_is_the_users_own_wherever_its_runner_lies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = types.ModuleType("__main__")
    program.__file__ = "/usr/lib/python3/site-packages/ipykernel_launcher.py"
    monkeypatch.setitem(sys.modules, "__main__", program)
    of_module.cache_clear()
    assert of_module("__main__").kind == "user"


def test_a_package_installed_for_its_developer_is_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine_in_work.py").write_text("def f():\n    return 1\n")
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "of_others.py").write_text("__version__ = '7'\ndef f():\n    return 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    import mine_in_work  # type: ignore[import-not-found]
    import of_others  # type: ignore[import-not-found]

    assert origin_of(mine_in_work.f).kind == "user"
    assert origin_of(of_others.f) == Origin("package", "of_others", "7")


def test_a_package_has_the_version_of_whatever_it_was_installed_as(monkeypatch: pytest.MonkeyPatch) -> None:
    import google.protobuf  # type: ignore[import-untyped]  # noqa: F401 - only what is imported has an origin
    import PIL

    of_module.cache_clear()
    assert of_module("PIL.Image") == Origin("package", "PIL", PIL.__version__)
    assert metadata.version("protobuf") in of_module("google.protobuf").version
    monkeypatch.setattr(origin, "packages_distributions", lambda: {"google": ["pytest", "numpy", "numpy"]})
    of_module.cache_clear()
    origin._version.cache_clear()
    shared = sorted((np.__version__, pytest.__version__))
    assert of_module("google.protobuf") == Origin("package", "google", ", ".join(shared))
    of_module.cache_clear()
    origin._version.cache_clear()


def test_a_name_that_was_taken_over_is_no_proof() -> None:
    @functools.wraps(json.dumps)
    def f() -> None: ...

    class Taken:
        pass

    Taken.__module__, Taken.__qualname__ = "keras.layers", "Taken"
    assert origin_of(f).kind == origin_of(Taken).kind == "user"
