"""Links, devices, limits and signatures of the files in a folder."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bottleneck.errors import Rejected, SourceError
from bottleneck.sources import open_source
from tests.sources.tiny_files import labels, png, tree


@pytest.mark.fault(60)
def test_links_to_files_are_followed_and_dangling_ones_counted(tmp_path: Path) -> None:
    tree(tmp_path, {"in/cats/1.png": 1, "out/2.png": 2})
    (tmp_path / "in/cats/link.png").symlink_to(tmp_path / "out/2.png")
    (tmp_path / "in/cats/gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "in/cats/self.png").symlink_to("self.png")
    source = open_source(tmp_path / "in")
    assert set(labels(source)) == {b"cats/1.png", b"cats/link.png"}
    assert source.read(b"cats/link.png") == png(2)
    assert source.passed_over() == {"link that leads nowhere": 1, "link in a circle": 1}


@pytest.mark.fault(60)
def test_links_to_folders_are_followed_once_and_end(tmp_path: Path) -> None:
    tree(tmp_path, {"in/cats/1.png": 1, "out/dogs/2.png": 2})
    (tmp_path / "in/cats/loop").symlink_to(tmp_path / "in")
    (tmp_path / "in/a_link_to_cats").symlink_to(tmp_path / "in/cats")
    (tmp_path / "in/dogs").symlink_to(tmp_path / "out/dogs")
    (tmp_path / "in/dogs_again").symlink_to(tmp_path / "out/dogs")
    (tmp_path / "out/dogs/up").symlink_to(tmp_path)
    source = open_source(tmp_path / "in")
    found = labels(source)
    # The real folder wins over links to it; of several links the first by name; a folder above holds the rest.
    assert found[b"cats/1.png"] == ("cats", None)
    assert found[b"dogs/2.png"] == ("dogs", None)
    assert len(found) == 2
    assert source.passed_over()["link to a folder already walked"] == 3
    assert source.passed_over()["folder already walked"] == 2


@pytest.mark.fault(60)
@pytest.mark.parametrize("seed", range(3))
def test_what_links_give_does_not_depend_on_the_order_of_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    import random

    from bottleneck.sources import folder

    tree(tmp_path / "out", {"3.png": 3})
    root = tree(tmp_path / "in", {"real/1.png": 1, "other/2.png": 2})
    for name in ("a", "s", "z"):
        (root / name).symlink_to("real")
    for name in ("u", "k", "w", "e"):
        (root / name).symlink_to(tmp_path / "out")
    expected = {b"real/1.png": ("real", None), b"other/2.png": ("other", None), b"e/3.png": ("e", None)}
    plain = folder._scan_folder

    class Shuffled:
        def __init__(self, path: bytes) -> None:
            self.inner = plain(path)

        def __enter__(self) -> object:
            names = list(self.inner.__enter__())
            random.Random(seed).shuffle(names)
            return iter(names)

        def __exit__(self, *error: object) -> None:
            self.inner.__exit__(*error)

    monkeypatch.setattr(folder, "_scan_folder", Shuffled)
    assert labels(open_source(root)) == expected


@pytest.mark.fault(61)
def test_fifos_and_sockets_are_never_opened(tmp_path: Path) -> None:
    tree(tmp_path, {"cats/1.png": 1})
    os.mkfifo(tmp_path / "cats/pipe.png")
    (tmp_path / "cats/link.png").symlink_to("pipe.png")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(tmp_path / "cats")  # socket names are short
        try:
            listener.bind("socket.png")
        finally:
            os.chdir(here)
        source = open_source(tmp_path)
        assert set(labels(source)) == {b"cats/1.png"}
    assert source.passed_over() == {"FIFO, socket or device": 3}


@pytest.mark.fault(61)
def test_a_file_that_becomes_a_fifo_is_rejected_without_waiting(tmp_path: Path) -> None:
    tree(tmp_path, {"cats/1.png": 1})
    source = open_source(tmp_path)
    (path,) = labels(source)
    (tmp_path / "cats/1.png").unlink()
    os.mkfifo(tmp_path / "cats/1.png")
    with pytest.raises(Rejected, match="not a regular file") as caught:
        source.read(path)
    assert caught.value.retry


def test_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    tree(tmp_path, {"cats/1.png": 1})
    os.truncate(tmp_path / "cats/1.png", (1 << 30) + 1)  # sparse
    with pytest.raises(Rejected, match="more than the limit"):
        open_source(tmp_path).read(b"cats/1.png")


@pytest.mark.fault(64)
def test_a_path_longer_than_the_system_takes(tmp_path: Path) -> None:
    start = os.open(tmp_path, os.O_RDONLY)
    here = start
    parts = [b"cats"] + [b"d" * 250] * 20
    try:
        for part in parts:
            os.mkdir(part, dir_fd=here)
            deeper = os.open(part, os.O_RDONLY, dir_fd=here)
            if here != start:
                os.close(here)
            here = deeper
        file = os.open("1.png", os.O_WRONLY | os.O_CREAT, dir_fd=here)
        os.write(file, png(7))
        os.close(file)
        source = open_source(tmp_path)
        path = b"/".join(parts) + b"/1.png"
        assert len(path) > 4096
        assert labels(source) == {path: ("cats", None)}
        assert source.read(path) == png(7)
    finally:
        os.close(here)
        os.close(start)
        shutil.rmtree(tmp_path / "cats")


@pytest.mark.fault(64, 74)
def test_a_great_many_folders_need_few_descriptors(tmp_path: Path) -> None:
    tree(tmp_path, {f"c{i % 7}/d{i}/1.png": i for i in range(300)})
    script = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40));"
        "from bottleneck.sources import open_source; print(len(list(open_source(sys.argv[1]).entries())))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "300"


def test_signatures_change_with_the_file(tmp_path: Path) -> None:
    tree(tmp_path, {"cats/1.png": 1})
    source = open_source(tmp_path)
    (before,) = source.entries()
    status = os.stat(tmp_path / "cats/1.png")
    assert before.signature[:4] == (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    assert before.signature[4] > 0
    (tmp_path / "cats/1.png").write_bytes(png(2))
    os.utime(tmp_path / "cats/1.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    (after,) = source.entries()
    assert after.signature[1] == before.signature[1]
    assert after.signature != before.signature


def test_a_location_that_is_not_there_names_what_is(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nothing is there") as caught:
        open_source(tmp_path / "photos" / "cats")
    assert str(tmp_path) in str(caught.value)
    assert "one sub-folder a class" in str(caught.value)


def test_other_locations_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "link").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.csv")
    for location, expected in (
        (tmp_path / "notes.txt", r"none of the known kinds \(table, zip, tar, folder\)"),
        (tmp_path / "link", "a link that leads nowhere"),
        (tmp_path / "pipe.csv", "none of the known kinds"),
        ("", "empty text"),
        ("a\0b", "nothing is there"),
    ):
        with pytest.raises(SourceError, match=expected):
            open_source(location)


@pytest.mark.fault(62)
@pytest.mark.needs_tool("setpriv")
def test_unreadable_things_are_listed_by_name_and_cost_nothing_else(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root to become somebody else by setpriv")
    root = tree(
        tmp_path / "open", {"cats/1.png": 1, "cats/2.png": 2, "dogs/private/3.png": 3, "dogs/4.png": 4}
    )
    os.chmod(root / "cats/2.png", 0)
    os.chmod(root / "dogs/private", 0)
    for folder in (root, *root.parents):
        # pytest keeps its folders to itself, however many of them there are.
        if "pytest-of" in str(folder):
            os.chmod(folder, 0o755)
    script = (
        "import sys\n"
        "from bottleneck.sources.folder import FolderSource\n"
        "source = FolderSource.open(sys.argv[1])\n"
        "for entry in sorted(source.entries()):\n"
        "    try:\n"
        "        source.read(entry.path); print(entry.path.decode(), 'read')\n"
        "    except OSError as error:\n"
        "        print(entry.path.decode(), error.strerror)\n"
        "print(source.passed_over())\n"
    )
    python = _python_for_anybody()
    command = ["setpriv", "--reuid=65534", "--clear-groups", python, "-c", script]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(_import_paths()),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run([*command, root], check=False, capture_output=True, text=True, env=environment)
    if "ModuleNotFoundError" in done.stderr or "can't open" in done.stderr:
        pytest.skip("somebody else cannot read this checkout")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "cats/1.png read",
        "cats/2.png Permission denied",
        "dogs/4.png read",
        "dogs/private Permission denied",
        "{'unreadable folder': 1}",
    ]
    os.chmod(root, 0)
    done = subprocess.run([*command, root], check=False, capture_output=True, text=True, env=environment)
    os.chmod(root, 0o755)
    assert "SourceError" in done.stderr
    assert "cannot be listed: permission denied" in done.stderr


def _python_for_anybody() -> str:
    """The interpreter behind a virtual environment: the environment itself may lie where only its owner looks."""
    return os.path.realpath(sys.executable)


def _import_paths() -> list[str]:
    import pydantic

    return [str(Path(__file__).parents[2]), str(Path(pydantic.__file__).parents[1])]
