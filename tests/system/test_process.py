"""A worker's process has its streams to itself, and TensorFlow without the libraries that Keras would take along."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ALONE = """
import sys
from bottleneck.system.process import import_tensorflow

before = set(sys.modules)
import_tensorflow()
assert {"tensorflow", "keras"} <= set(sys.modules)
brought = {"pandas", "scipy", "sklearn"} & (set(sys.modules) - before)
assert not brought, brought

import scipy.sparse
import sklearn.linear_model
import pandas

assert pandas.DataFrame({"a": [1]}).shape == (1, 1)
"""

TAKEN = """
import sys
import scipy
from bottleneck.system.process import import_tensorflow

import_tensorflow()
assert sys.modules["scipy"] is scipy
"""


OPENED = """
import sys
from pathlib import Path
from bottleneck.extraction.worker.messages import Open
from bottleneck.extraction.worker.main import _opened
from bottleneck.schema import BaseRequest, Cache
from bottleneck.sources import open_source

request = BaseRequest(base="mobilenetv2", cut="block_1_expand", weights="random:0", size=32)
forward = _opened(Open(open_source("."), (request,), Cache(Path(sys.argv[1]))))
assert forward.spec.base == "mobilenetv2"
brought = {"pandas", "scipy", "sklearn"} & set(sys.modules)
assert not brought, brought
"""

ALONE_ON_STREAMS = """
import sys
from bottleneck.system.process import take_streams

asks, answers = take_streams()
print("a library's word")
assert asks.read() == b"asked" and sys.stdin is None
answers.write(b"answered")
answers.flush()
"""


def run(code: str, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr


def test_what_keras_looks_for_stays_out_and_can_be_imported_afterwards() -> None:
    run(ALONE)


def test_what_was_imported_before_stays() -> None:
    run(TAKEN)


def test_a_worker_builds_its_base_so(tmp_path: Path) -> None:
    run(OPENED, str(tmp_path))


def test_what_is_printed_does_not_meet_the_answers() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ALONE_ON_STREAMS],
        input=b"asked",
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == b"answered"
    assert b"a library's word" in done.stderr
