"""What a disk refuses reaches the user with the file that it was about, and with what to do."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Any

import pytest

from bottleneck.system.disk_errors import about, refusal
from tests.fakes import write_images
from tests.faults.private_mounts import memory, mount, private_mounts
from tests.in_process import FAKE, Call

NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO)


@pytest.mark.parametrize("number", NUMBERS)
def test_every_refusal_says_which_file_and_what_to_do(number: int) -> None:
    with (
        pytest.raises(OSError, match=re.escape(os.strerror(number))) as caught,
        about("/srv/out/model.keras"),
    ):
        raise OSError(number, os.strerror(number))
    words = refusal(caught.value)
    assert words.startswith(f"{os.strerror(number)}: /srv/out/model.keras; ")
    assert len(words.partition("; ")[2]) > 20


def test_a_name_that_is_there_stays_and_a_temporary_stands_for_its_file() -> None:
    with pytest.raises(OSError, match="other"), about("/srv/out"):
        raise OSError(errno.ENOSPC, "full", "other")
    with pytest.raises(OSError, match="'/srv/out'"), about("/srv/out", "/srv/.out.tmp"):
        raise OSError(errno.ENOSPC, "full", "/srv/.out.tmp")
    with pytest.raises(OSError, match=r"'/srv/out/x' -> '/srv/out/y'$"), about("/srv/out", "/srv/.out.tmp"):
        raise OSError(errno.ENOSPC, "full", b"/srv/.out.tmp/x", None, "/srv/.out.tmp/y")
    with pytest.raises(OSError, match=r"'/srv/\.out\.tmp2'"), about("/srv/out", "/srv/.out.tmp"):
        raise OSError(errno.ENOSPC, "full", "/srv/.out.tmp2")


def test_temporary_files_are_told_how_to_go_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for there in (tmp_path / "tmpabc" / "x", tmp_path):
        assert "TMPDIR" in refusal(OSError(errno.ENOSPC, "full", str(there)))
    assert "TMPDIR" not in refusal(OSError(errno.ENOSPC, "full", f"{tmp_path}abc"))
    assert "TMPDIR" in refusal(
        FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")
    )
    assert str(tmp_path) in refusal(OSError(errno.ENOSPC, "full"))


@pytest.mark.needs_tool("mount")
@pytest.mark.parametrize("kind", ["full", "read-only"])
@pytest.mark.parametrize("command", ["features", "train", "extract"])
@private_mounts
def test_each_command_names_the_file_on_a_disk_that_refuses(
    tmp_path: Path, capfdbinary: Any, monkeypatch: pytest.MonkeyPatch, call: Call, command: str, kind: str
) -> None:
    source = write_images(tmp_path / "in", {"cat": 12, "dog": 12})
    disk = memory(tmp_path / "disk", "size=64k" if kind == "full" else "size=8m")
    if kind == "full":
        free = os.statvfs(disk)
        (disk / "filler").write_bytes(bytes(free.f_bavail * free.f_bsize))
    else:
        mount("-o", "remount,ro", disk)
    where = {"features": "--out", "train": "--run", "extract": "--cache"}[command]
    said = call(command, source, "--base", FAKE, where, disk / "there", "--json", "--quiet")
    assert said.status in (1, 2), said.err
    assert (
        "No space left on device" in said.err
        or "Read-only file system" in said.err
        or "cannot be" in said.err
    )
    assert str(disk / "there") in said.json["error"]
    assert re.search(r"give (a|another) |choose another", said.json["error"]), said.json["error"]


URL = "s3://cache/feat"


@pytest.mark.parametrize(
    "command",
    [
        ("features", "IN", "--base", FAKE, "--out", URL),
        ("features", "IN", "--base", FAKE, "--out", "out", "--cache", URL),
        ("train", "IN", "--base", FAKE, "--run", URL),
        ("extract", "IN", "--base", FAKE, "--cache", URL),
        ("merge", "run", "--out", f"{URL}.keras"),
        ("export", "run", "--format", "keras", "--out", URL),
        ("finetune", "run", "--unfreeze", "top:1", "--cache", URL),
        ("demo", "--out", URL),
    ],
    ids=lambda command: " ".join(part for part in command if part[:2] == "--" or part.islower()),
)
def test_a_url_where_a_path_is_written_is_refused_and_makes_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call, command: tuple[str, ...]
) -> None:
    source = write_images(tmp_path / "in", {"cat": 2, "dog": 2})
    monkeypatch.chdir(tmp_path)
    said = call(*(str(source) if part == "IN" else part for part in command), "--json", "--quiet")
    assert said.status == 2, said.err
    assert re.search(r"s3:/+cache/feat", said.json["error"])
    assert not (tmp_path / "s3:").exists()
