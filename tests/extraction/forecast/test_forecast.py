"""What an extraction will take: arithmetic over a sample_task, and the sample_task itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bottleneck
from bottleneck.extraction.forecast.forecast import forecast_run, sample_task
from bottleneck.extraction.forecast.recommend import Machine, suggest
from bottleneck.extraction.profile import Clock
from bottleneck.extraction.worker.trial import Trial, sample_size
from bottleneck.inventory.scan import scan_source
from bottleneck.pipeline.foresee import foresee
from bottleneck.schema import Inventory
from bottleneck.sources.open import open_source
from bottleneck.store.plan import plan_tasks
from tests.extraction.fake_runs import here
from tests.fakes import FakeForward, write_images

FAKE = "tests.fakes:base"


@pytest.fixture
def inventory(tmp_path: Path) -> Inventory:
    return scan_source(open_source(write_images(tmp_path / "in", {"cat": 20, "dog": 10})), tmp_path / "scans")


def test_hours_and_bytes_grow_with_images_and_tasks(inventory: Inventory) -> None:
    spec = FakeForward().spec
    todo = plan_tasks(inventory, spec, np.zeros(30, bool), task_rows=8)
    clock = Clock({"forward": 1.0}, {}, 0.0, 2)
    trial = Trial(images=10, start=3.0, seconds=2.0, write=0.5, overhead=100, batch=4, clock=clock)
    told = forecast_run([todo], spec, trial, 7.0, Machine())
    assert told.seconds == pytest.approx(7.0 + 3.0 + 30 * 0.2 + 4 * 0.5)
    assert told.images_per_second == pytest.approx(5.0)
    assert told.bytes == 30 * (6 * 4 + 32) + 4 * 100
    assert told.bytes_by_dtype == {"float32": told.bytes, "float16": 30 * (6 * 2 + 32) + 4 * 100}
    twice = forecast_run([todo, todo], spec, trial, 7.0, Machine())
    assert twice.bytes == 2 * told.bytes
    assert twice.seconds - 10 == pytest.approx(2 * (told.seconds - 10))


@pytest.mark.parametrize(
    ("precision", "stage", "extensions", "gpus", "expected"),
    [
        ("float32", "forward", "avx2 amx_bf16", 0, "bfloat16"),
        ("float32", "forward", "avx2", 0, "float32"),
        ("float32", "forward", "avx2 amx_bf16", 1, "auto"),
        ("float32", "decode", "avx2 amx_bf16", 0, "float32"),
        ("bfloat16", "forward", "avx2 amx_bf16", 0, "bfloat16"),
    ],
)
def test_another_precision_is_suggested_where_it_would_help(
    precision: Any, stage: str, extensions: str, gpus: int, expected: str
) -> None:
    clock = Clock({"decode": 1.0, "forward": 1.0, stage: 9.0})
    found = suggest(clock, 60.0, 16, precision, Machine(extensions, gpus))
    assert (found.precision, found.workers, found.batch, found.machines) == (expected, max(1, gpus), 16, 1)


def test_a_long_run_is_told_how_many_machines_end_it_in_an_hour_and_keeps_its_own_search() -> None:
    found = suggest(Clock({"forward": 1.0}), 10 * 3600.0, 32, "float32", Machine())
    assert (found.machines, found.batch) == (10, None)


def test_a_sample_is_drawn_from_the_whole_plan(inventory: Inventory) -> None:
    todo = plan_tasks(inventory, FakeForward().spec, np.zeros(30, bool))
    task = sample_task(todo)
    keys = dict(zip(inventory.table.column("path").to_pylist(), inventory.keys, strict=True))
    assert sorted(task.paths) == sorted(keys)
    assert list(task.paths) != sorted(keys)
    for path, key in zip(task.paths, task.keys, strict=True):
        np.testing.assert_array_equal(keys[path], key)


def test_a_slow_base_is_sampled_by_few_passes_and_a_fast_one_by_no_more_than_a_task() -> None:
    assert sample_size(60.0, 32, 1024) == 3 * 32
    assert sample_size(1e-9, 32, 1024) == 1024
    assert sample_size(1.0, 8, 1024) == 80


# So small a shard is nearly all record, and that of views says more.
@pytest.mark.parametrize(("views", "within"), [(1, 0.01), (3, 0.2)])
def test_a_dry_run_foretells_the_bytes_that_a_run_then_stores(
    tmp_path: Path, views: int, within: float
) -> None:
    source = write_images(tmp_path / "in", {"cat": 40, "dog": 40})
    options = {"cache": tmp_path / "cache", "views": views}
    left = foresee(source, FAKE, **options)
    assert not (tmp_path / "cache").exists()
    assert left.prediction is not None
    assert left.prediction.sampled == 80
    assert left.prediction.bottleneck
    done = bottleneck.extract(source, FAKE, **options)
    stores = [done.store] if done.views is None else [done.store, done.views.store]
    stored = sum(path.stat().st_size for store in stores for path in (store / "shards").iterdir())
    assert left.prediction.bytes == pytest.approx(stored, rel=within)
    document = json.loads(json.dumps(left.to_json()))
    assert document["prediction"]["bytes"] == left.prediction.bytes


def test_where_there_is_nothing_to_do_no_worker_is_started(tmp_path: Path) -> None:
    source = write_images(tmp_path / "in", {"cat": 4})
    here(source, tmp_path / "cache")
    left = foresee(source, FAKE, cache=tmp_path / "cache")
    assert left.to_compute == 0
    assert left.prediction is None


def test_an_image_of_the_sample_that_has_no_row_costs_the_sample_nothing(tmp_path: Path) -> None:
    source = write_images(tmp_path / "in", {"cat": 12})
    (source / "cat" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing more")
    left = foresee(source, FAKE, cache=tmp_path / "cache")
    assert left.prediction is not None
    assert left.prediction.sampled == 13
