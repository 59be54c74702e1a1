"""The command as a process of its own: names it cannot show, broken streams, signals, what a second run costs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fakes import write_images
from tests.in_process import FAKE

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A source, a run over it, and their cache, for real processes that only read."""
    folder = tmp_path_factory.mktemp("trained")
    write_images(folder / "in", {"cat": 15, "dog": 15})
    places = ("--run", folder / "run", "--cache", folder / "cache")
    done = bottleneck("train", folder / "in", "--base", FAKE, *places, "--json")
    assert done.returncode == 0, done.stderr
    return folder / "in", folder / "run", folder / "cache"


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "bottleneck", *map(str, arguments)]


def bottleneck(*arguments: object, **options: object) -> subprocess.CompletedProcess[bytes]:
    settings = {"cwd": ROOT, "capture_output": True, "timeout": 120, **options}
    return subprocess.run(command(*arguments), check=False, **settings)  # type: ignore[call-overload, no-any-return]


def test_a_name_that_the_terminal_cannot_show_is_escaped(trained: tuple[Path, Path, Path]) -> None:
    source, _, cache = trained
    done = bottleneck(
        *("extract", source, "--base", FAKE, "--cache", cache, "--quiet", "--json"),
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    )
    assert json.loads(done.stdout)["reused"] == 30
    for encoding in ("ascii", "latin-1", "utf-8"):
        done = bottleneck(
            *("evaluate", os.fsdecode(b"r\xff\xe2\x98\x83un")),
            env={**os.environ, "PYTHONIOENCODING": encoding},
        )
        assert done.returncode == 2
        assert b"no finished run" in done.stderr and b"Traceback" not in done.stderr
        assert b"\\udcff" in done.stderr or b"\\xff" in done.stderr


def test_a_reader_that_has_seen_enough_is_no_error_to_talk_about(trained: tuple[Path, Path, Path]) -> None:
    source, run, cache = trained
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as closed:
        for arguments in (("predict", "--trust", run, source), ("extract", source, "--base", FAKE, "--json")):
            done = bottleneck(
                *(*arguments, "--cache", cache, "--quiet"),
                capture_output=False,
                stdout=closed,
                stderr=subprocess.PIPE,
            )
            assert done.returncode == 1
            assert done.stderr == b""


@pytest.mark.fault(75)
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("streams", [">&-", "2>/dev/full", ">&- 2>&-", ">/dev/full"])
def test_closed_and_full_streams_leave_the_work_alone(
    trained: tuple[Path, Path, Path], tmp_path: Path, streams: str, unbuffered: str
) -> None:
    arguments = command("extract", trained[0], "--base", FAKE, "--cache", tmp_path / "cache")
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {streams}', "sh", *arguments],
        cwd=ROOT,
        # What a full stream buffers is tried once more as Python exits.
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        capture_output=True,
        check=False,
        timeout=300,
    )
    # Whoever asked for an answer and cannot have it is told so; bars and remarks nobody misses.
    assert done.returncode == (1 if streams == ">/dev/full" else 0), done.stderr
    assert b"Traceback" not in done.stderr and b"Exception ignored" not in done.stderr
    if streams == ">/dev/full":
        assert b"could not be written to standard output: No space left" in done.stderr
    (record,) = (tmp_path / "cache" / "stores").glob("*/shards/*.json")
    assert json.loads(record.read_text())["rows"] == 30


def test_a_second_run_computes_nothing_and_the_light_parent_stays_light(
    trained: tuple[Path, Path, Path],
) -> None:
    source, _, cache = trained
    code = (
        "import sys; from bottleneck.cli import main; main(sys.argv[1:])\n"
        "print(*sorted({'tensorflow', 'keras', 'sklearn', 'h5py', 'scipy'} & set(sys.modules)))"
    )
    for more in ([], ["--rehash"]):
        arguments = ["extract", source, "--base", FAKE, "--cache", cache, "--json", "--quiet", *more]
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            cwd=ROOT,
            capture_output=True,
            check=True,
            timeout=300,
        )
        found, modules = done.stdout.decode().split("\n")[:2]
        assert (json.loads(found)["computed"], json.loads(found)["reused"]) == (0, 30)
        assert modules == ""


SLOW = """
import os, signal, time
from bottleneck.schema import StoreSpec
from tests.fakes import FakeForward

class ShortTasks(StoreSpec):
    @property
    def task_rows(self):
        return 4

class Slow(FakeForward):
    def __init__(self):
        super().__init__()
        self.spec = ShortTasks(**dict(self.spec))
        self.calls = 0

    def features(self, pixels):
        self.calls += 1
        if self.calls > 5 and os.path.exists("stop"):  # three for the canary, then one a task
            with open("pid.part", "w") as file:
                file.write(str(os.getpid()))
            os.replace("pid.part", "pid")
            signal.pause()
        return super().features(pixels)
"""


@pytest.mark.parametrize(
    ("number", "status", "kind"), [(signal.SIGINT, 130, "Interrupted"), (signal.SIGTERM, 143, "Terminated")]
)
def test_an_interrupted_extraction_keeps_its_shards_and_goes_on(
    tmp_path: Path, number: signal.Signals, status: int, kind: str
) -> None:
    write_images(tmp_path / "in", {"cat": 8, "dog": 8})
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "stop").touch()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    arguments = command("extract", "in", "--base", "slow:Slow", "--cache", "cache", "--json")
    process = subprocess.Popen(
        arguments, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        until = time.monotonic() + 300
        while not (tmp_path / "pid").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until
            time.sleep(0.02)
        process.send_signal(number)
        out, err = process.communicate(timeout=300)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
    assert process.returncode == status, err
    assert json.loads(out)["kind"] == kind and json.loads(out)["exit_status"] == status
    assert b"finished shards are kept" in err and b"Traceback" not in err
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    (tmp_path / "stop").unlink()
    done = subprocess.run(
        arguments, cwd=tmp_path, env=environment, capture_output=True, check=True, timeout=300
    )
    assert (json.loads(done.stdout)["computed"], json.loads(done.stdout)["reused"]) == (8, 8)
