"""A process of its own that cannot import this package, and what its failures are called."""

from __future__ import annotations

import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bottleneck.contracts import Reader
from bottleneck.errors import ExportError
from bottleneck.exports import bare
from bottleneck.exports.artefact import reader_text
from bottleneck.exports.bare import run_bare

PIXELS = np.arange(5 * 2 * 2 * 3, dtype=np.uint8).reshape(5, 2, 2, 3)

#: A reader of a text file: features are pixels times the number in it.
GOOD = """
    import numpy as np

    NAMES = ("features", "logits", "probabilities")

    def document(path):
        return {"factor": open(path).read()}

    def open_model(path):
        factor = float(open(path).read())
        return lambda x: {n: np.float32(x).reshape(len(x), -1) * factor for n in NAMES}

    def open_files(path):
        return lambda files: {"probabilities": np.array([[len(f), sum(f)] for f in files], np.float32)}
"""


@pytest.fixture
def artefact(tmp_path: Path) -> Path:
    path = tmp_path / "model.txt"
    path.write_text("2")
    return path


@pytest.fixture
def by(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A reader of these lines."""

    def made(text: str) -> Reader:
        monkeypatch.setattr(bare, "reader_text", lambda _: textwrap.dedent(text))
        return Reader("made")

    return made


def test_pixels_go_in_and_named_arrays_come_back(by: Any, artefact: Path, tmp_path: Path) -> None:
    ran = run_bare(by(GOOD), artefact, pixels=PIXELS, batch=2, scratch=tmp_path)
    np.testing.assert_array_equal(ran.outputs["logits"], PIXELS.reshape(5, -1) * np.float32(2))
    assert set(ran.outputs) == {"features", "logits", "probabilities"}
    assert ran.document == {"factor": "2"}
    assert ran.milliseconds > 0
    assert list(tmp_path.iterdir()) == [artefact]


def test_files_of_all_lengths_go_in_as_they_are(by: Any, artefact: Path) -> None:
    files = [b"abc", b"", b"\0\xff\0", b"x" * 1000]
    ran = run_bare(by(GOOD), artefact, files=files, wanted=["probabilities"], batch=3)
    np.testing.assert_array_equal(ran.outputs["probabilities"], [[len(f), sum(f)] for f in files])
    assert set(ran.outputs) == {"probabilities"}


def test_this_package_cannot_be_imported_there(by: Any, artefact: Path) -> None:
    with pytest.raises(
        ExportError, match=r"model.txt does not run in a process without this package: exit status 1"
    ):
        run_bare(by("import bottleneck" + GOOD), artefact, pixels=PIXELS)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            "raise ValueError('line 1\\nno such\\x1b[31m format')",
            r"ValueError: line 1\n  no such\\x1b\[31m format$",
        ),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "killed by SIGSEGV"),
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
    ],
    ids=["error", "crash", "library"],
)
def test_a_failure_has_its_last_words(by: Any, artefact: Path, text: str, why: str) -> None:
    with pytest.raises(ExportError, match=why):
        run_bare(by(text), artefact, pixels=PIXELS)


def test_one_that_hangs_is_stopped(by: Any, artefact: Path) -> None:
    start = time.monotonic()
    with pytest.raises(ExportError, match=r"model.txt gave no answer within 1 s and was stopped"):
        run_bare(by("import time; time.sleep(600)"), artefact, pixels=PIXELS, timeout=1)
    assert time.monotonic() - start < 300


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (
            "{'features': x.reshape(len(x), -1), 'logits': np.zeros((len(x), 2))}",
            "no output 'probabilities', only",
        ),
        ("{n: np.full((len(x), 2), np.nan) for n in N}", "features of 5 of 5 images are not finite"),
        ("{n: np.zeros((1, 2)) for n in N}", r"features of shape \(1, 2\) for 5 images"),
    ],
)
def test_outputs_that_cannot_be_are_refused(by: Any, artefact: Path, body: str, why: str) -> None:
    text = f"""
        import numpy as np
        N = ("features", "logits", "probabilities")
        def document(path): return {{}}
        def open_model(path): return lambda x: {body}
    """
    with pytest.raises(ExportError, match=why):
        run_bare(by(text), artefact, pixels=PIXELS)


def test_what_is_not_there_is_named(by: Any, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"gone\.onnx is not there"):
        run_bare(by(GOOD), tmp_path / "gone.onnx", pixels=PIXELS)


def test_a_library_that_is_missing_is_named_with_the_extra_that_brings_it(artefact: Path) -> None:
    lacking = Reader("onnx_file", ("tf2onnx_not_here", "numpy"), "onnx")
    with pytest.raises(ExportError, match=r"needs tf2onnx_not_here, which .* 'bottleneck-features\[onnx\]'"):
        run_bare(lacking, artefact, pixels=PIXELS)


def test_a_full_disk_is_no_traceback(by: Any, artefact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(ExportError, match=r"model\.txt cannot be tried: No space left on device"):
        run_bare(by(GOOD), artefact, pixels=PIXELS)


def test_exactly_one_kind_of_input_and_at_least_one_image(by: Any, artefact: Path) -> None:
    for wrong in ({}, {"pixels": PIXELS, "files": [b""]}, {"pixels": PIXELS[:0]}, {"files": []}):
        with pytest.raises(ValueError, match="give "):
            run_bare(by(GOOD), artefact, **wrong)


def test_every_reader_is_there_as_text() -> None:
    assert reader_text(Reader("litert")).startswith('"""')
