"""Streams, users and locales around the package: rows 75 to 77."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import bottleneck
from bottleneck.schema import Cache
from tests.fakes import write_images
from tests.faults.reference_stores import (
    FAKE,
    ROOT,
    check_served,
    python,
    run_command,
    serve,
    snapshot,
    some_store,
)


@pytest.mark.fault(75)
@pytest.mark.parametrize("streams", ["<&- >&- 2>&-", ">/dev/full 2>&1", "2>&-", "< /dev/null | true"])
def test_a_build_nobody_listens_to(tmp_path: Path, streams: str) -> None:
    source, cache = write_images(tmp_path / "in", {"a": 12}), tmp_path / "cache"
    arguments = [
        sys.executable,
        "-m",
        "bottleneck",
        "extract",
        str(source),
        "--base",
        FAKE,
        "--cache",
        str(cache),
    ]
    command = ["sh", "-c", f'"$@" {streams}', "sh", *arguments]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False, timeout=600)
    done = bottleneck.extract(source, FAKE, cache=cache)
    assert (done.computed, done.reused) == (0, 12), "the build was whole, whoever heard of it"
    assert check_served(source, cache) == 12


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that others may enter, as pytest's own are not."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


NOBODY = ("setpriv", "--reuid=65534", "--clear-groups")
#: Another user may not be able to start this Python a second time: the worker runs in the same process.
AS_NOBODY = (
    "import os, sys, bottleneck.extraction.run as run; from tests.in_process import InProcessWorker\n"
    "run.ExtractionRun.worker_type = InProcessWorker\n"
    "from bottleneck.cli import main; main(sys.argv[1:])"
)


@pytest.mark.fault(76)
@pytest.mark.needs_tool("setpriv")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_the_cache_of_another_user(open_folder: Path, umask: int) -> None:
    """Made by one user, used by another: read when it may be, refused by name when not, never half written."""
    if python("import tests.in_process", prefix=NOBODY).returncode:
        pytest.skip("this Python cannot be run by another user")
    source, cache = write_images(open_folder / "in", {"a": 6}), open_folder / "cache"
    script = f"import os; os.umask({umask}); import bottleneck; import sys\n"
    made = python(
        script + "bottleneck.extract(sys.argv[1], sys.argv[2], cache=sys.argv[3])", source, FAKE, cache
    )
    assert made.returncode == 0, made.stderr
    before = snapshot(cache)
    arguments = ("extract", str(source), "--base", FAKE, "--cache", str(cache), "--quiet")
    done = python(AS_NOBODY, *arguments, prefix=NOBODY)
    if umask == 0o022:
        assert done.returncode == 0, done.stderr
    else:
        assert_no_permission(done, cache)
    write_images(source, {"b": 3}, seed=1)
    done = python(AS_NOBODY, *arguments, prefix=NOBODY)
    assert_no_permission(done, cache)
    assert snapshot(cache) == before
    assert bottleneck.extract(source, FAKE, cache=cache).computed == 3
    assert check_served(source, cache) == 9


def assert_no_permission(done: subprocess.CompletedProcess[str], cache: Path) -> None:
    assert done.returncode in (1, 2), (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert str(cache) in done.stderr
    assert "ermission denied" in done.stderr or "is not readable" in done.stderr, done.stderr


@pytest.mark.fault(77)
def test_the_locale_changes_no_byte(tmp_path: Path) -> None:
    """C, an unknown one, UTF-8 off and on, Latin-1: same scan, same shards, same paths, names in any script."""
    folder = os.fsencode(tmp_path / "in") + "/классы".encode()
    os.makedirs(folder)
    plain = write_images(tmp_path / "plain", {"a": 6})
    names = [
        "猫.png".encode(),
        b"\xe9.png",
        b"\xff\xfe.png",
        "é.png".encode(),
        b"plain.png",
        b"new\nline.png",
    ]
    for name, path in zip(names, sorted((plain / "a").iterdir()), strict=True):
        os.rename(path, folder + b"/" + name)
    settings: list[dict[str, str]] = [
        {"LC_ALL": "C.UTF-8"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "C", "PYTHONUTF8": "1"},
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "no_SUCH.locale", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "latin-1"},
    ]
    seen = []
    for number, flags in enumerate(settings):
        out, cache = tmp_path / f"out{number}", tmp_path / f"cache{number}"
        more = ("--base", FAKE, "--cache", cache, "--quiet")
        done = run_command("features", tmp_path / "in", *more, "--out", out, **flags)
        assert done.returncode == 0, (flags, done.stderr)
        shards = {name: h for name, h in snapshot(cache).items() if "/shards/" in name}
        seen.append((shards, snapshot(out)))
        matrix = np.load(out / "features.npy")
        assert matrix.shape == (6, 6)
    assert all(each == seen[0] for each in seen)


@pytest.mark.fault(77)
def test_served_under_another_locale(cache: Cache) -> None:
    keys, rows = some_store(cache, 2, 5)
    assert serve(cache, keys, rows).verdict == "harmless"
    script = (
        "import sys, tempfile\nfrom pathlib import Path\nfrom bottleneck.schema import Cache\n"
        "from tests.faults.reference_stores import serve, some_store\n"
        "reference = some_store(Cache(Path(tempfile.mkdtemp())), 2, 5)\n"
        "print(serve(Cache(Path(sys.argv[1])), *reference).verdict)"
    )
    for flags in (
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "tr_TR.ISO8859-9"},
    ):
        assert python(script, cache.root, **flags).stdout == "harmless\n"
