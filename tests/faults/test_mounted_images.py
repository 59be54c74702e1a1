"""Another disk image mounted at the same path, alike in path, size, times and inode of every file."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from bottleneck.inventory.scan import scan_source
from bottleneck.schema import Inventory
from bottleneck.sources import open_source
from bottleneck.sources.folder import FolderSource
from tests.faults.private_mounts import mount, private_mounts
from tests.sources.tiny_files import png

FILES = 5
#: A year and a half of seconds lies between the times of two files: none is shared.
LONG_AGO = 10**9
UUID = "4a3c1b5e-0000-4000-8000-000000000027"


def grown(root: Path, first: int) -> Path:
    """A folder of images whose names, sizes and times do not depend on their content."""
    (root / "cats").mkdir(parents=True)
    for number in range(FILES):
        file = root / f"cats/{number}.png"
        file.write_bytes(png(first + number))
        time = LONG_AGO + 50_000_000 // FILES * number
        os.utime(file, (time, time))
    for folder in (root / "cats", root):
        os.utime(folder, (LONG_AGO, LONG_AGO))
    return root


def squashfs(tree: Path, image: Path) -> None:
    command = ["mksquashfs", tree, image, "-noappend", "-mkfs-time", str(LONG_AGO), "-quiet", "-no-progress"]
    subprocess.run(command, check=True, capture_output=True)


def erofs(tree: Path, image: Path) -> None:
    subprocess.run(["mkfs.erofs", "-U", UUID, image, tree], check=True, capture_output=True)


def ext4(tree: Path, image: Path) -> None:
    with image.open("wb") as file:
        file.truncate(1 << 20)
    made = ["mkfs.ext4", "-q", "-O", "^has_journal", "-U", UUID, "-d", tree, image]
    subprocess.run(made, check=True, capture_output=True)
    for number in range(FILES):
        # No call to the kernel sets this time; whoever holds the image can.
        field = f"set_inode_field /cats/{number}.png ctime @{LONG_AGO + number}"
        subprocess.run(["debugfs", "-w", "-R", field, image], check=True, capture_output=True)


def seen(folder: Path) -> list[tuple[int, ...]]:
    files = [os.stat(folder / f"cats/{number}.png") for number in range(FILES)]
    return [(s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in files]


def contents(inventory: Inventory) -> set[bytes]:
    return {record.content for record in inventory}


@pytest.mark.fault(56)
@pytest.mark.needs_tool("mount")
@pytest.mark.parametrize(
    "made",
    [
        pytest.param(squashfs, marks=pytest.mark.needs_tool("mksquashfs")),
        pytest.param(erofs, marks=pytest.mark.needs_tool("mkfs.erofs")),
        pytest.param(ext4, marks=[pytest.mark.needs_tool("mkfs.ext4"), pytest.mark.needs_tool("debugfs")]),
    ],
    ids=lambda made: made.__name__,
)
@private_mounts
def test_another_image_at_the_same_path_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Callable[[Path, Path], None]
) -> None:
    reads: list[bytes] = []
    read = FolderSource.read
    monkeypatch.setattr(FolderSource, "read", lambda self, path: (reads.append(path), read(self, path))[1])
    at = tmp_path / "images"
    at.mkdir()
    before: list[tuple[int, ...]] = []
    for first in (100, 200):
        image = tmp_path / f"{first}.img"
        made(grown(tmp_path / f"tree{first}", first), image)
        mount("-o", "loop,ro,noatime", image, at)
        try:
            now, reads[:] = seen(at), []
            found = contents(scan_source(open_source(at), tmp_path / "scans"))
            assert found == {hashlib.sha256(png(first + number)).digest() for number in range(FILES)}
            assert len(reads) == FILES
            again, reads[:] = contents(scan_source(open_source(at), tmp_path / "scans")), []
            assert again == found
        finally:
            subprocess.run(["umount", str(at)], check=True)
        assert before in ([], now), "the second image does not look like the first: nothing is shown"
        before = now
