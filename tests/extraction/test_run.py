"""The one pass, by a real worker process with a base that needs no TensorFlow."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bottleneck
from bottleneck.errors import SourceError, StoreError, TooManyBadImages
from bottleneck.extraction.retry_policy import RetryPolicy
from bottleneck.extraction.run import ExtractionRun
from bottleneck.extraction.worker.main import Worker
from bottleneck.inventory.scan import scan_source
from bottleneck.schema import BaseRequest, Cache
from bottleneck.sources.open import open_source
from bottleneck.store.join import join
from bottleneck.store.maintenance.prune import KeptContents, prune_store
from bottleneck.store.read import Store
from bottleneck.system.progress import Silent
from tests.extraction.fake_runs import FAKE, check_served, counts, here, shards
from tests.fakes import FakeForward, write_images
from tests.in_process import extract_one


def test_a_worker_process_computes_each_image_once(tmp_path: Path) -> None:
    source, cache = write_images(tmp_path / "in", {"cat": 7, "dog": 6}), tmp_path / "cache"
    first = bottleneck.extract(source, FAKE, cache=cache)
    assert counts(first) == {"computed": 13}
    assert first.bottleneck_stage in ("decode", "forward", "write")
    again = bottleneck.extract(source, FAKE, cache=cache)
    assert counts(again) == {"reused": 13}
    assert shards(again) == shards(first)
    check_served(source, cache)


def test_where_nothing_is_missing_the_images_are_gone_through_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, cache = write_images(tmp_path / "in", {"cat": 3}), tmp_path / "cache"
    rounds: list[str] = []
    planned = ExtractionRun._round

    def counted(run: ExtractionRun, inventory: Any, stores: Any, policy: RetryPolicy) -> Any:
        rounds.append(policy.contents)
        return planned(run, inventory, stores, policy)

    monkeypatch.setattr(ExtractionRun, "_round", counted)
    bottleneck.extract(source, FAKE, cache=cache)
    assert rounds == ["all", "suspects"]
    bottleneck.extract(source, FAKE, cache=cache)
    assert rounds == ["all", "suspects", "all"]


@pytest.mark.fault(57, 58)
def test_names_labels_and_folders_cost_no_forward_pass(tmp_path: Path) -> None:
    source, cache = write_images(tmp_path / "in", {"cat": 20, "dog": 20}), tmp_path / "cache"
    here(source, cache)
    (source / "cat").rename(source / "felis")
    moved = tmp_path / "elsewhere"
    for folder in ("felis", "dog"):
        (moved / folder).mkdir(parents=True)
        for path in sorted((source / folder).iterdir())[:10]:
            path.rename(moved / folder / path.name)
    for path in sorted((source / "dog").iterdir())[:5]:
        shutil.copy(path, source / "felis" / f"copy-{path.name}")
    assert counts(here(source, cache)[0]) == {"reused": 20, "duplicates": 5}
    assert counts(here(moved, cache)[0]) == {"reused": 20}
    check_served(source, cache)


@pytest.mark.fault(56)
def test_changed_bytes_under_an_old_name_and_date_are_computed_anew(tmp_path: Path) -> None:
    source, cache = write_images(tmp_path / "in", {"cat": 5, "dog": 5}), tmp_path / "cache"
    here(source, cache)
    victim = source / "cat" / "002.png"
    before = victim.stat()
    other = write_images(tmp_path / "other", {"x": 1}, seed=99) / "x" / "000.png"
    victim.write_bytes(other.read_bytes())
    os.utime(victim, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert counts(here(source, cache)[0]) == {"computed": 1, "reused": 9}
    check_served(source, cache)


def test_bits_do_not_depend_on_how_the_work_was_cut_or_interrupted(tmp_path: Path) -> None:
    source = write_images(tmp_path / "in", {"cat": 11, "dog": 12})
    whole, _, _ = here(source, tmp_path / "whole", task_rows=5)
    calls = 0

    class Stops(FakeForward):
        def features(self, pixels: np.ndarray) -> np.ndarray:
            nonlocal calls
            calls += 1
            if calls == 6:
                raise KeyboardInterrupt
            return super().features(pixels)

    with pytest.raises(KeyboardInterrupt):
        here(source, tmp_path / "halved", Stops(), task_rows=5)
    resumed, _, _ = here(source, tmp_path / "halved", task_rows=5)
    assert 0 < resumed.reused < 23
    assert shards(resumed) == shards(whole)


def test_bad_images_cost_themselves_alone(tmp_path: Path) -> None:
    source, cache = write_images(tmp_path / "in", {"cat": 10, "dog": 10}), tmp_path / "cache"
    (source / "cat" / "empty.jpg").write_bytes(b"")
    (source / "cat" / "page.png").write_bytes(b"<html>not found</html>")
    whole = (source / "cat" / "001.png").read_bytes()
    (source / "dog" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (source / "dog" / "notes.txt").write_text("mine")
    (source / ".DS_Store").write_bytes(b"\0")
    done, inventory, store = here(source, cache)
    assert counts(done) == {"computed": 20, "rejected": 3, "ignored": 2}
    assert sorted(r.path for r in done.rejections) == ["cat/empty.jpg", "cat/page.png", "dog/cut.png"]
    again, _, _ = here(source, cache)
    assert counts(again) == {"reused": 20, "rejected": 3, "ignored": 2}
    assert [r.reason for r in again.rejections] == [r.reason for r in done.rejections]
    assert len(join(store, inventory)) == 20


@pytest.mark.fault(71)
def test_too_many_bad_images_end_the_run_with_everything_good_stored(tmp_path: Path) -> None:
    source, cache = write_images(tmp_path / "in", {"cat": 4, "dog": 4}), tmp_path / "cache"
    for name in "abc":
        (source / "dog" / f"{name}.png").write_bytes(name.encode())
    with pytest.raises(TooManyBadImages, match=r"3 of 11 images.*allows 1.*other 8 are stored") as caught:
        bottleneck.extract(source, FAKE, cache=cache)
    assert caught.value.exit_status == 3
    assert all(f"dog/{name}.png" in str(caught.value) for name in "abc")
    assert counts(bottleneck.extract(source, FAKE, cache=cache, max_bad=0.5)) == {"reused": 8, "rejected": 3}


@pytest.mark.fault(72)
def test_a_row_that_is_not_finite_is_a_rejection(tmp_path: Path) -> None:
    from PIL import Image

    source, cache = write_images(tmp_path / "in", {"cat": 6}), tmp_path / "cache"
    Image.new("RGB", (9, 9), "white").save(source / "cat" / "white.png")
    done, _, store = here(source, cache)
    assert counts(done) == {"computed": 6, "rejected": 1}
    assert "NaN or infinity" in done.rejections[0].reason
    assert len(store) == 6


@pytest.mark.fault(72)
def test_a_feature_that_overflows_float16_is_a_rejection_that_says_so(tmp_path: Path) -> None:
    source, cache = write_images(tmp_path / "in", {"cat": 6, "dog": 6}), tmp_path / "cache"
    forward = FakeForward(dtype="float16", scale=20000.0)
    done, _, store = here(source, cache, forward)
    assert done.rejected
    assert all("--dtype float32" in r.reason for r in done.rejections)
    assert done.computed + done.rejected == 12
    rows = store.gather(np.arange(len(store)))
    assert rows.dtype == np.float16
    assert np.isfinite(rows).all()


@pytest.mark.fault(54, 55)
def test_an_image_that_changes_while_it_is_read_is_planned_again(tmp_path: Path) -> None:
    source, cache = write_images(tmp_path / "in", {"cat": 6}), tmp_path / "cache"
    other = (write_images(tmp_path / "other", {"x": 1}, seed=5) / "x" / "000.png").read_bytes()

    class Meddles(FakeForward):
        def features(self, pixels: np.ndarray) -> np.ndarray:
            (source / "cat" / "005.png").write_bytes(other)
            (source / "cat" / "004.png").unlink(missing_ok=True)
            return super().features(pixels)

    # One decoding thread ahead would have read the files already: the change comes before the task, after the scan.
    opened = open_source(source)
    scans = 0

    def scan_and_meddle() -> object:
        nonlocal scans
        found = scan_source(opened, cache / "scans")
        scans += 1
        if scans == 1:
            (source / "cat" / "005.png").write_bytes(other)
            (source / "cat" / "004.png").unlink()
        return found

    done, inventory, store = extract_one(
        opened,
        scan_and_meddle,
        BaseRequest(base="object:fake"),
        Cache(cache),
        Silent(),
        worker=Worker(FakeForward(), opened, Cache(cache)),
    )
    assert scans == 2
    assert counts(done) == {"computed": 5}
    assert len(join(store, inventory)) == 5
    check_served(source, cache)


def test_no_images_is_said(tmp_path: Path) -> None:
    (tmp_path / "in" / "cat").mkdir(parents=True)
    (tmp_path / "in" / "cat" / "notes.txt").write_text("nothing here")
    with pytest.raises(SourceError, match="no images were found"):
        bottleneck.extract(tmp_path / "in", FAKE, cache=tmp_path / "cache")


def pruned_before_looking(monkeypatch: pytest.MonkeyPatch, cache: Path, looks: range) -> None:
    """Before the store is opened for these times, counted from 0, somebody prunes all of it."""
    real, count = ExtractionRun._open_stores, 0

    def open_stores(self: ExtractionRun) -> list[Store]:
        nonlocal count
        if count in looks:
            (folder,) = (cache / "stores").iterdir()
            prune_store(folder, KeptContents(np.full((1, 32), 7, np.uint8)), done=True)
        count += 1
        return real(self)

    monkeypatch.setattr(ExtractionRun, "_open_stores", open_stores)


@pytest.mark.fault(24)
def test_rows_that_are_removed_meanwhile_are_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, cache = write_images(tmp_path / "in", {"cat": 6}), tmp_path / "cache"
    pruned_before_looking(monkeypatch, cache, range(1, 2))
    done, _, _ = here(source, cache, task_rows=2)
    assert counts(done) == {"computed": 6}
    check_served(source, cache)


@pytest.mark.fault(24)
def test_rows_that_were_there_and_are_removed_meanwhile_are_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run has something else to do, and does not look at those rows until its end."""
    source, cache = write_images(tmp_path / "in", {"cat": 6}), tmp_path / "cache"
    here(source, cache, task_rows=2)
    write_images(source, {"dog": 2}, seed=5)
    pruned_before_looking(monkeypatch, cache, range(1, 2))
    done, _, _ = here(source, cache, task_rows=2)
    assert done.rejected == 0
    check_served(source, cache)


@pytest.mark.fault(24)
def test_rows_that_are_removed_as_often_as_they_are_computed_are_an_error_that_blames_no_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, cache = write_images(tmp_path / "in", {"cat": 6}), tmp_path / "cache"
    with monkeypatch.context() as patch:
        pruned_before_looking(patch, cache, range(1, 9))
        with pytest.raises(StoreError, match=r"features of 6 images were removed while .*`store prune`"):
            here(source, cache, task_rows=2)
    check_served(source, cache)
