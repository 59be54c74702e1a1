"""Run an artefact; `bare.py` starts this file as text."""

import contextlib
import ctypes
import json
import runpy
import signal
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

#: Single images that are timed, after one that is not.
_TIMED = 5


def main(artefact: str, batch: int) -> None:
    """Read `reader.py` and `inputs.npz`; write `outputs.npz` and `ran.json`."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # die with the parent (Linux)
    # Whatever is installed here, it is as if this package were not.
    sys.modules["bottleneck"] = None  # type: ignore[assignment]
    reader = runpy.run_path("reader.py")
    with np.load("inputs.npz", allow_pickle=False) as inputs:
        if "pixels" in inputs:
            images, run = inputs["pixels"], reader["open_model"](artefact)
        else:
            data, ends = inputs["data"].tobytes(), inputs["ends"].tolist()
            images = [data[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
            run = reader["open_files"](artefact)
    parts = [run(images[start : start + batch]) for start in range(0, len(images), batch)]
    outputs = {name: np.concatenate([part[name] for part in parts]).astype(np.float32) for name in parts[0]}
    ran = {"milliseconds": _milliseconds(run, images[:1]), "document": reader["document"](artefact)}
    np.savez("outputs.npz", **outputs)  # type: ignore[arg-type]
    Path("ran.json").write_text(json.dumps(ran), "utf-8")


def _milliseconds(run: Callable[[Any], Any], one: Any) -> float:
    run(one)
    seconds = []
    for _ in range(_TIMED):
        start = time.perf_counter()
        run(one)
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
