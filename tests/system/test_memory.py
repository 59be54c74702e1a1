"""What is free: the least of machine, groups and limits."""

from __future__ import annotations

from pathlib import Path

import pytest

from bottleneck.errors import UsageError
from bottleneck.system.memory import budget, free

GIB = 1 << 30


def machine(root: Path, groups: str = "") -> tuple[Path, Path]:
    proc, cgroups = root / "proc", root / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text(f"MemTotal: {16 * GIB >> 10} kB\nMemAvailable: {8 * GIB >> 10} kB\n")
    (proc / "self" / "cgroup").write_text(groups)
    cgroups.mkdir()
    return proc, cgroups


def limit(folder: Path, names: tuple[str, str, str], most: object, used: int, inactive: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{most}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {inactive}\n")


V2 = ("memory.max", "memory.current", "inactive_file")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def test_without_groups_it_is_what_the_machine_has(tmp_path: Path) -> None:
    assert free(*machine(tmp_path)) == 8 * GIB


def test_a_limit_of_any_group_above_counts_and_file_pages_do_not(tmp_path: Path) -> None:
    proc, cgroups = machine(tmp_path, "0::/job/step\n")
    limit(cgroups / "job", V2, 3 * GIB, 2 * GIB, GIB)
    limit(cgroups / "job" / "step", V2, "max", 0, 0)
    assert free(proc, cgroups) == 2 * GIB


def test_the_first_version_of_groups_is_read_too(tmp_path: Path) -> None:
    proc, cgroups = machine(tmp_path, "4:cpu:/x\n3:memory,hugetlb:/box\n")
    limit(cgroups / "memory", V1, (1 << 63) - 4096, 0, 0)
    limit(cgroups / "memory" / "box", V1, GIB, GIB // 2, 0)
    assert free(proc, cgroups) == GIB // 2


def test_a_container_that_sees_its_group_as_the_root(tmp_path: Path) -> None:
    proc, cgroups = machine(tmp_path, "0::/docker/abc\n")
    limit(cgroups, V2, GIB, 0, 0)
    assert free(proc, cgroups) == GIB


def test_nothing_left_is_none_and_nothing_known_is_modest(tmp_path: Path) -> None:
    proc, cgroups = machine(tmp_path, "0::/\n")
    limit(cgroups, V2, GIB, 2 * GIB, 0)
    assert free(proc, cgroups) == 0
    assert 0 < free(tmp_path / "no", tmp_path / "where") <= 2 * GIB


@pytest.mark.parametrize(("text", "bytes_"), [("4G", 4 * GIB), ("0.5k", 512), ("7", 7), ("2MiB", 2 << 20)])
def test_budgets_as_people_write_them(text: str, bytes_: int) -> None:
    assert budget(text) == bytes_


@pytest.mark.parametrize("text", ["", "many", "4X", "infG"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected bytes"):
        budget(text)
