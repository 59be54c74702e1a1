"""Weight files as Keras writes them, small, and bytes of them changed by a seed; each copied in a process of its own.

python -m tests.faults.weight_mutations FOLDER FIRST STOP    outcome -> how many, as JSON
"""

from __future__ import annotations

import io
import json
import os
import random
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from bottleneck.bases.weight_copy import copy_file
from bottleneck.system import hdf5_child


def legacy(**how: Any) -> bytes:
    """As Keras 2 wrote them: names in attributes, one dataset chunked and compressed."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", **how) as file:
        file.attrs["layer_names"] = np.array([b"c1", b"c2"])
        file.attrs["backend"] = "tensorflow"
        for name in ("c1", "c2"):
            group = file.create_group(name)
            group.attrs["weight_names"] = np.array([b"c/kernel:0", b"c/bias:0"])
            group["c/kernel:0"] = np.ones((3, 3, 3, 4), np.float32)
            group.create_dataset("c/bias:0", data=np.ones(4, np.float32), chunks=(2,), compression="gzip")
    return buffer.getvalue()


def keras3(**how: Any) -> bytes:
    """As Keras 3 writes them: numbered datasets in groups called `vars`, one of them of an opaque type."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", **how) as file:
        for name in ("conv", "dense"):
            group = file.create_group(f"layers/{name}/vars")
            group.attrs["name"] = name
            group["0"] = np.ones((3, 3, 3, 4), np.float32)
            group.create_dataset("1", data=np.ones(4, "V2")).attrs["dtype"] = "bfloat16"
    return buffer.getvalue()


def sound() -> list[bytes]:
    return [legacy(), keras3(), legacy(libver="latest"), keras3(libver="latest"), legacy(track_order=True)]


def mutated(files: list[bytes], seed: int) -> bytes:
    chance = random.Random(seed)
    data = bytearray(files[seed % len(files)])
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        at = chance.randrange(chance.choice((256, 2048, len(data))))
        kind = chance.randrange(4)
        if kind == 0:
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            data[at] = chance.randrange(256)
        elif kind == 2:
            data[at : at + 4] = chance.choice((b"\xff" * 4, b"\0" * 4, b"\xff\xff\xff\x7f"))
        else:
            data[at : at + 8] = chance.choice((b"\xff" * 8, b"\0" * 8, (1 << 40).to_bytes(8, "little")))
    return bytes(data)


def main() -> None:
    folder, first, stop = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    hdf5_child.forget_plugins()
    files, outcomes = sound(), Counter[str]()
    for seed in range(first, stop):
        path, answer = folder / "mutated.weights.h5", folder / "answer"
        path.write_bytes(mutated(files, seed))
        answer.write_text("no answer")
        child = os.fork()
        if not child:
            hdf5_child.limit_resources(1 << 30, 5)
            answer.write_text(copy_file(path, folder / "plain.h5"))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            outcomes[signal.Signals(os.WTERMSIG(status)).name] += 1
        else:
            outcomes[answer.read_text()[:40] or "copied"] += 1
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main()
