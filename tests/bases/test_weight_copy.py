"""Weight files of others: copied by a child that may hang or die of them, and never opened by anybody else."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from bottleneck.bases import weight_copy
from bottleneck.bases.weight_copy import copy_file, plain_copy
from bottleneck.errors import WeightsError
from bottleneck.system import hdf5_child
from tests.faults.plugin import regime
from tests.faults.weight_mutations import keras3, legacy, sound

ROOT = Path(__file__).parents[2] / "bottleneck"


def contents(path: Path | io.BytesIO) -> dict[str, Any]:
    """Every array and every attribute that Keras reads."""
    found: dict[str, Any] = {}
    with h5py.File(path, "r") as file:

        def note(name: str, item: Any) -> None:
            found.update({f"{name}@{key}": np.asarray(value).tolist() for key, value in item.attrs.items()})
            found[name] = (item.dtype, item[()].tobytes()) if isinstance(item, h5py.Dataset) else list(item)

        note("", file)
        file.visititems(note)
    found.pop("@backend", None)
    return found


@pytest.mark.parametrize("data", sound(), ids=range(5))
def test_a_sound_file_is_copied_bit_for_bit(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.weights.h5"
    path.write_bytes(data)
    with plain_copy(path) as plain:
        assert plain.name == "plain.weights.h5"
        assert contents(plain) == contents(path)
    assert not plain.parent.exists()
    packed = tmp_path / "x.keras"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", data)
    with plain_copy(packed) as plain, zipfile.ZipFile(plain) as archive:
        assert archive.read("config.json") == b"{}"
        assert contents(io.BytesIO(archive.read("model.weights.h5"))) == contents(path)


def test_long_lists_of_names_of_either_type_are_copied(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names0"] = np.array([b"a" * 60] * 1000)
        file.attrs.create("layer_names1", ["b" * 60] * 1000, dtype=h5py.string_dtype())
        file.attrs.create("weight_names", np.array([], "S1"))
    with plain_copy(path) as plain, h5py.File(plain) as file:
        assert list(file.attrs["layer_names0"]) == [b"a" * 60] * 1000
        assert list(file.attrs["layer_names1"]) == ["b" * 60] * 1000
        assert file.attrs["weight_names"].shape == (0,)


def _circle(file: h5py.File) -> None:
    file["layers/again"] = file["layers"]


def _huge(file: h5py.File) -> None:
    file.create_dataset("huge", (1 << 40,), "<f4", chunks=(1 << 20,), compression="gzip")


def _many(file: h5py.File) -> None:
    """Each is small; hard links make a gigabyte of them."""
    file["layers/one"] = np.zeros(1 << 22, np.float32)
    for number in range(64):
        file[f"layers/{number}"] = file["layers/one"]


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4,), "<f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (4,))
    file.create_virtual_dataset("virtual", layout)


EVIL: dict[str, tuple[Callable[[h5py.File], Any], str]] = {
    "external link": (lambda f: f.__setitem__("e", h5py.ExternalLink("/etc/passwd", "/")), "e is a link"),
    "soft link": (lambda f: f.__setitem__("s", h5py.SoftLink("/layers")), "s is a link"),
    "external storage": (
        lambda f: f.create_dataset("d", (4,), "<f4", external=[("/etc/passwd", 0, 16)]),
        "d keeps its data elsewhere",
    ),
    "virtual": (_virtual, "virtual keeps its data elsewhere"),
    "circle": (_circle, "below 64 others"),
    "huge": (_huge, r"huge declares \(1099511627776,\)"),
    "one array under many names": (_many, "declares far more"),
    "text": (lambda f: f.create_dataset("t", data=["a", "b"]), "t holds object; expected numbers"),
    "compound": (lambda f: f.create_dataset("c", data=np.zeros(2, "i4,f4")), "c holds .*; expected numbers"),
    "references": (lambda f: f.create_dataset("r", data=f.ref, dtype=h5py.ref_dtype), "r holds object"),
    "named type": (lambda f: f.__setitem__("n", np.dtype("<f4")), "n is a named type"),
    "no shape": (lambda f: f.create_dataset("z", dtype="<f4", data=h5py.Empty("<f4")), "z holds"),
}


@pytest.mark.fault(44, 45, 49)
@pytest.mark.parametrize("name", EVIL)
def test_what_keras_never_writes_is_refused_by_name(name: str, tmp_path: Path) -> None:
    evil, match = EVIL[name]
    path = tmp_path / "evil.weights.h5"
    buffer = io.BytesIO(keras3())
    with h5py.File(buffer, "r+") as file:
        evil(file)
    path.write_bytes(buffer.getvalue())
    wrong = copy_file(path, tmp_path / "plain.h5")
    assert re.search(match, wrong), wrong
    assert not (tmp_path / "plain.h5").exists()


@pytest.mark.fault(44, 45, 49)
@pytest.mark.parametrize("data", [b"", b"not HDF5", keras3()[:700], legacy()[:-400]], ids=range(4))
def test_rubbish_is_a_typed_error_that_names_the_file(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "rubbish.h5"
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=r"rubbish\.h5: cannot be read"), plain_copy(path):
        pass


@pytest.fixture
def child_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Code that the next child runs before anything else, as a file that exploits the library could."""

    def run(code: str) -> None:
        (tmp_path / "first").mkdir()
        (tmp_path / "first" / "sitecustomize.py").write_text(code)
        given = hdf5_child.child_environment()
        given["PYTHONPATH"] = os.pathsep.join([str(tmp_path / "first"), given["PYTHONPATH"]])
        monkeypatch.setattr(hdf5_child, "child_environment", lambda: given)

    return run


DEATHS = {
    "segmentation fault": ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
    "abort": ("import os; os.abort()", "SIGABRT"),
    "out-of-memory kill": ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "memory runs out"),
    "busy for ever": (
        "import resource; resource.setrlimit(resource.RLIMIT_CPU, (1, 2))\nwhile True: pass",
        "of processor time",
    ),
    "asleep for ever": ("import time; time.sleep(3600)", "took more than"),
    "exception": ("import sys; print('no such thing', file=sys.stderr); sys.stderr.flush()\n"
                  "import os; os._exit(3)", "no such thing"),
}  # fmt: skip


@pytest.mark.fault(44, 45, 49)
@pytest.mark.parametrize("death", DEATHS)
def test_a_file_that_kills_or_hangs_its_reader_costs_the_child(
    death: str, tmp_path: Path, child_runs: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, match = DEATHS[death]
    child_runs(code)
    if death == "asleep for ever":
        monkeypatch.setattr(weight_copy, "_PATIENCE", 0.05)
    path = tmp_path / "x.weights.h5"
    path.write_bytes(keras3())
    with pytest.raises(WeightsError, match=rf"x\.weights\.h5.*{match}"), plain_copy(path):
        pass


@pytest.mark.fault(44, 45)
def test_memory_and_time_of_the_child_are_bounded(tmp_path: Path) -> None:
    code = (
        "from bottleneck.system import hdf5_child; hdf5_child.limit_resources(1 << 28, 1)\n"
        "try:\n bytes(1 << 30)\nexcept MemoryError:\n print('refused', flush=True)\n"
        "while True: pass"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "refused"
    assert done.returncode == -24, "SIGXCPU"


@pytest.mark.fault(44, 45, 49)
def test_the_child_limits_itself_and_loads_no_plugins(
    tmp_path: Path, child_runs: Callable[[str], None]
) -> None:
    found = tmp_path / "found.json"
    child_runs(
        "import atexit, json, resource\n"
        "def tell():\n"
        "    import h5py\n"
        "    limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_CPU, resource.RLIMIT_AS)]\n"
        f"    open({str(found)!r}, 'w').write(json.dumps([*limits, h5py.h5pl.size()]))\n"
        "atexit.register(tell)"
    )
    path = tmp_path / "x.weights.h5"
    path.write_bytes(keras3())
    with plain_copy(path):
        seconds, memory, plugins = json.loads(found.read_text())
    assert 0 < seconds <= weight_copy._SECONDS
    assert 0 < memory < 8 << 30
    assert plugins == 0


@pytest.mark.fault(7)
def test_a_full_disk_names_the_folder_of_the_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.weights.h5"
    path.write_bytes(keras3())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    (tmp_path / "scratch").mkdir()
    wrong = copy_file(path, tmp_path / "scratch" / "plain.h5")
    assert "No space left on device" in wrong
    assert "TMPDIR" in wrong
    assert str(tmp_path) in wrong


@pytest.mark.fault(44, 45, 49)
def test_bytes_changed_anywhere_are_copied_or_refused(tmp_path: Path) -> None:
    """No signal but that of the processor's time, which some of them take for ever (7 of 6,000)."""
    stop = 6000 if regime() == "full" else 60
    command = [sys.executable, "-m", "tests.faults.weight_mutations", str(tmp_path), "0", str(stop)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT.parent)
    outcomes = json.loads(done.stdout.splitlines()[-1])
    assert sum(outcomes.values()) == stop
    assert outcomes["copied"] > stop / 5
    refused = sum(count for why, count in outcomes.items() if why not in ("copied", "SIGXCPU"))
    assert refused > stop / 5
    assert not [why for why in outcomes if "no answer" in why]
    assert not [why for why in outcomes if why.startswith("SIG") and why != "SIGXCPU"]


def test_nothing_else_parses_hdf5_or_models_of_others() -> None:
    """Keras' loaders and h5py open what our own process wrote, or what `plain_copy` gives."""
    opened: dict[str, set[str]] = {}
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                name = ast.unparse(node.func)
                if node.func.attr == "load_weights" or name in ("keras.saving.load_model", "h5py.File"):
                    opened.setdefault(str(path.relative_to(ROOT)), set()).add(node.func.attr)
    assert opened == {
        "bases/custom.py": {"load_model"},  # plain_copy
        "bases/weight_copy.py": {"File"},  # the child
        "bases/weights.py": {"File", "load_weights"},  # plain_copy
        "exports/readers/keras_file.py": {"load_model"},  # its own process, the user's
        "exports/merged_file.py": {"load_model"},  # written a moment before
        "pipeline/predict.py": {"load_model"},  # plain_copy
        "store/shard.py": {"File"},  # in memory, our own bytes
        "store/maintenance/structure.py": {"File"},  # a child
    }


def test_a_copy_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    path = tmp_path / "rubbish.h5"
    path.write_bytes(b"rubbish")
    with pytest.raises(WeightsError), plain_copy(path):
        pass
    assert not list((tmp_path / "scratch").iterdir())
    shutil.rmtree(tmp_path / "scratch")
    with pytest.raises(WeightsError, match=r"h5: no room for a copy: .*scratch.*TMPDIR"), plain_copy(path):
        pass
