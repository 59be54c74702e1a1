"""Run an artefact in a process that cannot import this package."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from bottleneck.contracts import Reader
from bottleneck.errors import ExportError
from bottleneck.exports.artefact import reader_text, require_libraries
from bottleneck.models.outputs import STAGES
from bottleneck.system.disk_errors import about, refusal
from bottleneck.system.durable import shown

#: Lines of a failed process's last words that go into the message.
_LAST_WORDS = 6


@dataclass(frozen=True, eq=False)
class BareResult:
    """What an artefact gave in its own process.

    Attributes
    ----------
    outputs : dict of str to numpy.ndarray
        The wanted outputs and any others; float32, images first.
    milliseconds : float
        Median over single images after a warm-up; for files with their decoding.
    document : dict
        What `bottleneck.json` inside the artefact says.
    """

    outputs: dict[str, np.ndarray]
    milliseconds: float
    document: dict[str, Any]


def run_bare(
    reader: Reader,
    artefact: Path,
    *,
    pixels: np.ndarray | None = None,
    files: Sequence[bytes] | None = None,
    wanted: Sequence[str] = STAGES,
    batch: int = 32,
    scratch: Path | None = None,
    timeout: float = 900.0,
) -> BareResult:
    """Run an artefact over images in a process of its own.

    Parameters
    ----------
    reader : Reader
        Of the artefact's kind: `Exporter.reader`.
    artefact : Path
        File or folder.
    pixels : numpy.ndarray, optional
        (n, height, width, 3) uint8 or float32 in 0..255, n at least 1.
    files : sequence of bytes, optional
        Contents of n image files, for kinds that take them. Exactly one of `pixels` and `files` is given.
    wanted : sequence of str
        Names of the outputs that it must give.
    batch : int
        Images at a time; a format that runs one image at a time ignores it.
    scratch : Path, optional
        Folder for the temporary folder of the process, by default the system's.
    timeout : float
        Seconds until the process is killed.

    Returns
    -------
    BareResult

    Raises
    ------
    ExportError
        A library is missing; the artefact cannot be read or run (the message has the process's last words); it takes
        longer than `timeout`; an output is missing, is not finite, or has not one row an image.

    Examples
    --------
    >>> ran = run_bare(exporter.reader, path, pixels=np.zeros((2, 96, 96, 3), np.uint8))  # doctest: +SKIP
    >>> sorted(ran.outputs), ran.milliseconds  # doctest: +SKIP
    (['features', 'logits', 'probabilities'], 4.2)
    """
    if (pixels is None) == (files is None):
        raise ValueError("give pixels or files, and not both")
    require_libraries(reader, artefact.name)
    if not artefact.exists():
        raise ExportError(f"{artefact} is not there")
    inputs = {"pixels": pixels} if pixels is not None else _packed(files or ())
    count = len(pixels) if pixels is not None else len(files or ())
    if not count:
        raise ValueError("give at least one image")
    try:
        with tempfile.TemporaryDirectory(prefix="bare-", dir=scratch) as name:
            folder = Path(name)
            with about(folder):
                np.savez(folder / "inputs.npz", **inputs)  # type: ignore[arg-type]
                (folder / "reader.py").write_text(reader_text(reader), "utf-8")
            _start(folder, artefact, batch, timeout)
            ran = json.loads((folder / "ran.json").read_text("utf-8"))
            with np.load(folder / "outputs.npz", allow_pickle=False) as arrays:
                outputs = {stage: np.asarray(arrays[stage], np.float32) for stage in arrays.files}
    except OSError as error:
        raise ExportError(f"{artefact.name} cannot be tried: {refusal(error)}") from error
    _check(artefact, outputs, wanted, count)
    return BareResult(outputs, float(ran["milliseconds"]), ran["document"])


def _packed(files: Sequence[bytes]) -> dict[str, np.ndarray]:
    """Pack files into two arrays, so that nothing is pickled."""
    return {
        "data": np.frombuffer(b"".join(files), np.uint8),
        "ends": np.cumsum([len(data) for data in files], dtype=np.int64),
    }


def _start(folder: Path, artefact: Path, batch: int, timeout: float) -> None:
    code = (resources.files(__package__) / "runner.py").read_text("utf-8")
    # -I: neither the current folder nor variables of the environment change what is imported.
    command = [sys.executable, "-I", "-c", code, str(artefact.absolute()), str(batch)]
    # On the CPU: every format has one, and a GPU rounds products unless it is told not to.
    settings = {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **settings},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ExportError(
            f"{artefact.name} gave no answer within {timeout:g} s and was stopped; run it on fewer images, or leave "
            "this kind out"
        ) from error
    if done.returncode:
        raise ExportError(
            f"{artefact.name} does not run in a process without this package: {_cause(done.returncode, done.stderr)}"
        )


def _cause(status: int, errors: bytes) -> str:
    """Say how the process ended, with its last words."""
    lines = [line for line in errors.decode("utf-8", "replace").splitlines() if line.strip()]
    ended = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    return "\n  ".join([ended, *(shown(line) for line in lines[-_LAST_WORDS:])])


def _check(artefact: Path, outputs: Mapping[str, np.ndarray], wanted: Sequence[str], count: int) -> None:
    for name in wanted:
        if name not in outputs:
            raise ExportError(f"{artefact.name} has no output {name!r}, only {', '.join(sorted(outputs))}")
        if outputs[name].shape[:1] != (count,):
            raise ExportError(
                f"{artefact.name}: {name} of shape {outputs[name].shape} for {count} images; expected a row for each"
            )
        rows = np.isfinite(outputs[name].reshape(count, -1)).all(axis=1)
        if not rows.all():
            raise ExportError(
                f"{artefact.name}: {name} of {np.count_nonzero(~rows)} of {count} images are not finite numbers; its "
                "values do not fit the precision of this kind, or its weights are damaged"
            )
