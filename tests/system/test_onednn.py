"""Kernels are asked for where a user has said nothing, and what is recorded of them is what computes."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bottleneck import cli
from bottleneck.extraction.worker.channel import WorkerChannel
from bottleneck.extraction.worker.messages import Open
from bottleneck.schema import BaseRequest, Cache, Limits
from bottleneck.sources import open_source
from bottleneck.system import onednn
from tests.fakes import FakeForward

ASKED = "TF_ENABLE_ONEDNN_OPTS"

X86 = platform.machine() in ("x86_64", "AMD64")

#: A convolution, and what is said of whose kernels computed it.
CONVOLVED = """
import json
import tensorflow as tf
from bottleneck.forward.keras_forward import tensorflow_environment

pixels, kernel = tf.ones([2, 24, 24, 48]), tf.ones([3, 3, 48, 32])
tf.function(lambda x: tf.nn.relu(tf.nn.conv2d(x, kernel, 1, "SAME")))(pixels).numpy()
facts = tensorflow_environment()
print(json.dumps([facts["onednn"], "threads" in facts]))
"""


class Telling(FakeForward):
    """Names as its cut what its process finds said of kernels, since that is what a worker first tells."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = self.spec.model_copy(update={"cut": os.environ.get(ASKED, "nothing said")})
        self.specs = (self.spec,)


def telling() -> Telling:
    """For ``--base``."""
    return Telling()


@pytest.mark.parametrize(
    ("machine", "asked"),
    [("x86_64", {ASKED: "1"}), ("AMD64", {ASKED: "1"}), ("aarch64", {}), ("arm64", {})],
)
def test_they_are_asked_for_on_x86_alone(
    machine: str, asked: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert onednn.requested_environment() == asked


@pytest.mark.parametrize("said", [None, "0"])
def test_a_worker_is_asked_to_where_its_user_has_said_nothing(
    said: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ASKED, raising=False)
    if said:
        monkeypatch.setenv(ASKED, said)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    requests = (BaseRequest(base="tests.system.test_onednn:telling"),)
    link = WorkerChannel(Open(open_source(tmp_path), requests, Cache(tmp_path)), Limits())
    try:
        link.start()
        assert link.specs[0].cut == (said or "1")
    finally:
        link.close()


@pytest.mark.parametrize("said", [None, "0"])
def test_the_command_asks_for_its_own_process(said: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {name: value for name, value in os.environ.items() if name != ASKED})
    if said:
        os.environ[ASKED] = said
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    with pytest.raises(SystemExit):
        cli.main(["no-such-command"])
    assert os.environ[ASKED] == (said or "1")


def convolved(said: str | None) -> tuple[Any, bool]:
    """What is said of a process's kernels, and whether oneDNN itself tells of having run a convolution there."""
    environment = {name: value for name, value in os.environ.items() if name != ASKED}
    environment["ONEDNN_VERBOSE"] = "profile_exec"
    if said is not None:
        environment[ASKED] = said
    done = subprocess.run(
        [sys.executable, "-c", CONVOLVED], env=environment, capture_output=True, check=True, timeout=300
    )
    lines = done.stdout.decode().splitlines()
    told = any(line.startswith("onednn_verbose") and ",exec,cpu,convolution," in line for line in lines)
    return json.loads(lines[-1]), told


@pytest.mark.keras
@pytest.mark.skipif(not X86, reason="elsewhere TensorFlow's oneDNN is another")
@pytest.mark.parametrize("said", ["0", "1", None])
def test_what_is_recorded_is_what_computes(said: str | None) -> None:
    (recorded, has_threads), told = convolved(said)
    assert recorded == str(int(told))
    # Eigen's bits depend on them.
    assert has_threads == (not told)
    # Left alone, TensorFlow chooses by the processor.
    assert said is None or told == (said == "1")
