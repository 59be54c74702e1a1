"""The process around the package: numbers, forks and descriptors. Rows 53, 73 and 74."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import bottleneck
from bottleneck.errors import ForeignEnvironment
from bottleneck.schema import Cache
from tests.fakes import write_images
from tests.faults.reference_stores import (
    FAKE,
    check_served,
    python,
    run_command,
    shards_of,
    snapshot,
    some_store,
)

Note = Callable[[str], None]

# ---------------------------------------------------------------------------------------------------- 53: numbers


@pytest.mark.fault(53)
@pytest.mark.parametrize(
    ("factor", "joins"), [("1", True), ("1.000001", True), ("1.001", False), ("nan", False)]
)
def test_another_environment_may_add_only_what_agrees(
    tmp_path: Path, cache: Cache, worker_here: None, monkeypatch: pytest.MonkeyPatch, factor: str, joins: bool
) -> None:
    """A flag is other than when the store began: the canary decides, also of what is there."""
    name = "tests.faults.bad_bases:elsewhere"
    monkeypatch.setenv("FAULTS_ONEDNN", "1")
    monkeypatch.setenv("FAULTS_FACTOR", "1")
    source = write_images(tmp_path / "in", {"a": 5})
    bottleneck.extract(source, name, cache=cache.root)
    before = snapshot(shards_of(cache))
    monkeypatch.setenv("FAULTS_ONEDNN", "0")
    monkeypatch.setenv("FAULTS_FACTOR", factor)
    if joins:
        assert bottleneck.extract(source, name, cache=cache.root).reused == 5
    else:  # the base is code: nobody can tell whether it changed, or the machine
        with pytest.raises(ForeignEnvironment, match="canary"):
            bottleneck.extract(source, name, cache=cache.root)
    write_images(source, {"b": 4}, seed=1)
    if joins:
        assert bottleneck.extract(source, name, cache=cache.root).computed == 4
        found = [json.loads(path.read_text())["environment"] for path in shards_of(cache).glob("*.json")]
        assert sorted(environment["onednn"] for environment in found) == ["0", "1"]
        assert before.items() <= snapshot(shards_of(cache)).items()
    else:
        with pytest.raises(ForeignEnvironment, match="canary"):
            bottleneck.extract(source, name, cache=cache.root)
        assert snapshot(shards_of(cache)) == before


@pytest.mark.keras
@pytest.mark.fault(53)
def test_real_flags_are_recorded_and_agree_or_are_refused(tmp_path: Path, full: bool, note: Note) -> None:
    """The same base with and without oneDNN, on one thread and on many: other bits at most, and few."""
    if not full:
        pytest.skip("five processes with TensorFlow; scripts/faults runs them")
    source = write_images(tmp_path / "in", {"a": 3}, size=(40, 40))
    arguments = (
        "extract",
        source,
        "--base",
        "squeezenet",
        "--weights",
        "random:0",
        "--size",
        48,
        "--json",
        "--quiet",
    )
    arguments += ("--cache", tmp_path / "cache")
    settings = [
        {},
        {"TF_ENABLE_ONEDNN_OPTS": "0"},
        {"TF_ENABLE_ONEDNN_OPTS": "0", "TF_NUM_INTRAOP_THREADS": "1"},
        {"XLA_FLAGS": "--xla_cpu_enable_fast_math=true"},
        {"NVIDIA_TF32_OVERRIDE": "0"},
    ]
    environments = []
    for seed, flags in enumerate(settings):
        write_images(source, {f"more{seed}": 2}, seed=seed + 1)
        done = run_command(*arguments, timeout=300, **flags)
        assert done.returncode == 0 or "canary" in done.stderr, done.stderr[-2000:]
        found = [
            json.loads(path.read_text())["environment"]
            for path in (tmp_path / "cache").glob("stores/*/shards/*.json")
        ]
        environments.append(len({json.dumps(each, sort_keys=True) for each in found}))
    assert environments[-1] >= 3, "what may change numbers is in the records"
    note(f"{len(settings)} settings, {environments[-1]} environments recorded")


# ----------------------------------------------------------------------------------------------- 73, 74: processes


@pytest.mark.fault(73)
def test_readers_forked_after_opening(cache: Cache) -> None:
    """Before the first row was read, and after some were: both maps and what was checked are inherited."""
    some_store(cache, 4, 20)
    script = """
import os, sys, tempfile
from pathlib import Path
import numpy as np
from bottleneck.schema import Cache
from bottleneck.store.read import open_store
from tests.faults.reference_stores import SPEC, some_store
keys, rows = some_store(Cache(Path(tempfile.mkdtemp())), 4, 20)
store = open_store(Cache(Path(sys.argv[1])), SPEC)
bad = 0
for warm in (0, 30):
    store.gather(store.find(keys[:warm]))
    children = []
    for seed in range(6):
        child = os.fork()
        if not child:
            try:
                draw = np.random.default_rng(seed)
                for _ in range(30):
                    order = draw.permutation(80)
                    if not np.array_equal(store.gather(store.find(keys[order])), rows[order]):
                        os._exit(1)
                os._exit(0)
            except BaseException:
                os._exit(2)
        children.append(child)
    bad += sum(os.waitpid(child, 0)[1] != 0 for child in children)
    if not np.array_equal(store.gather(store.find(keys)), rows):
        bad += 100
print(bad)
"""
    done = python(script, cache.root)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "0\n"


@pytest.mark.fault(74)
@pytest.mark.needs_tool("prlimit")
def test_few_descriptors_and_many_shards(cache: Cache, full: bool) -> None:
    keys, _ = some_store(cache, 300 if full else 80, 2)
    script = """
import sys, tempfile
from pathlib import Path
import numpy as np
from bottleneck.schema import Cache
from bottleneck.store.read import open_store
from tests.faults.reference_stores import SPEC, some_store
shards = int(sys.argv[2])
keys, rows = some_store(Cache(Path(tempfile.mkdtemp())), shards, 2)
store = open_store(Cache(Path(sys.argv[1])), SPEC)
order = np.random.default_rng(0).permutation(len(keys))
for _ in range(3):
    assert np.array_equal(store.gather(store.find(keys[order])), rows[order])
    assert all(np.array_equal(store.gather(store.find(keys[n : n + 1]))[0], rows[n]) for n in order)
print("right")
"""
    done = python(script, cache.root, len(keys) // 2, prefix=("prlimit", "--nofile=64"))
    assert done.stdout == "right\n", done.stderr


@pytest.mark.fault(74)
@pytest.mark.needs_tool("prlimit")
@pytest.mark.parametrize("limit", [64, 24, 16, 10, 7])
def test_a_build_with_few_descriptors_is_done_or_says_so(tmp_path: Path, limit: int) -> None:
    source, cache = write_images(tmp_path / "in", {"a": 30}), tmp_path / "cache"
    arguments = ("extract", source, "--base", FAKE, "--cache", cache, "--quiet")
    done = run_command(*arguments, prefix=("prlimit", f"--nofile={limit}"))
    assert done.returncode in (0, 1), done.stderr
    if done.returncode:
        assert limit < 64
        assert "Too many open files" in done.stderr, done.stderr[-1500:]
    again = bottleneck.extract(source, FAKE, cache=cache)
    assert again.rows == 30
    assert check_served(source, cache) == 30
