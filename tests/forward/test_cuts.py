"""Several cuts in one pass: each store as its cut alone would make it, and no image through the base twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import bottleneck
from bottleneck.cli.commands import app
from bottleneck.errors import TooManyBadImages, UsageError
from bottleneck.extraction.run import ExtractionRun, FilledStore
from bottleneck.extraction.setup import RunOptions
from bottleneck.extraction.worker.main import Worker
from bottleneck.forward.cuts import group_missing
from bottleneck.inventory.scan import scan_source
from bottleneck.pipeline.extract import extract_cuts
from bottleneck.schema import BaseRequest, Cache, Inventory
from bottleneck.sources.open import open_source
from bottleneck.system.progress import Silent
from tests.extraction.fake_runs import counts, here, shards
from tests.fakes import FakeForward, TwoCuts, WideAlone, write_images

CUTS = "tests.fakes:two_cuts"


def both(
    source: Path, cache: Path, forward: FakeForward | None = None, task_rows: int | None = None
) -> tuple[FilledStore, ...]:
    opened, where = open_source(source), Cache(cache)
    requests = [BaseRequest(base="object:fake", cut=cut) for cut in ("top", "wide")]
    worker = Worker(forward or TwoCuts(), opened, where, requests)
    options = RunOptions(worker=worker)
    run = ExtractionRun(opened, lambda: scan_source(opened, where.scans), requests, where, Silent(), options)
    run.task_rows = task_rows
    return run.run()[0]


@given(
    st.integers(0, 12).flatmap(
        lambda n: st.lists(st.lists(st.booleans(), min_size=n, max_size=n), min_size=2, max_size=3)
    )
)
def test_what_is_lacking_is_shared_out_once(lacking: list[list[bool]]) -> None:
    wanted = np.array(lacking, bool).reshape(len(lacking), -1)
    paths = [b"%d" % number for number in range(wanted.shape[1])]
    parts = group_missing(
        Inventory(pa.table({"path": pa.array(paths, pa.binary())}), "/photos"), list(wanted)
    )
    seen = {path: part.cuts for part in parts for path in part.inventory.table["path"].to_pylist()}
    assert sum(len(part.inventory) for part in parts) == len(seen)
    for number, path in enumerate(paths):
        assert seen.get(path, ()) == tuple(np.flatnonzero(wanted[:, number]))
    assert [len(part.cuts) for part in parts] == sorted((len(part.cuts) for part in parts), reverse=True)


def test_each_store_is_the_one_that_its_cut_alone_would_fill(tmp_path: Path) -> None:
    source = write_images(tmp_path / "in", {"cat": 11, "dog": 12})
    forward = TwoCuts()
    top, wide = both(source, tmp_path / "both", forward, task_rows=5)
    assert counts(top.report) == counts(wide.report) == {"computed": 23}
    # Five tasks of two passes at most (three images in the last), and three for the canary.
    assert forward.passes == 3 + 9
    alone, _, _ = here(source, tmp_path / "top", task_rows=5)
    assert shards(top.report) == shards(alone)
    alone, _, _ = here(source, tmp_path / "wide", WideAlone(), task_rows=5)
    assert shards(wide.report) == shards(alone)


def test_a_store_gets_what_it_lacks_and_no_more(tmp_path: Path) -> None:
    source, cache = write_images(tmp_path / "in", {"cat": 6}), tmp_path / "cache"
    here(source, cache)
    write_images(source, {"dog": 5}, seed=3)
    top, wide = both(source, cache)
    assert counts(top.report) == {"computed": 5, "reused": 6}
    assert counts(wide.report) == {"computed": 11}
    again = both(source, cache, TwoCuts())
    assert [counts(done.report) for done in again] == [{"reused": 11}, {"reused": 11}]


def test_a_row_that_one_cut_cannot_give_costs_that_cut_alone(tmp_path: Path) -> None:
    from PIL import Image

    source = write_images(tmp_path / "in", {"cat": 8})
    Image.new("RGB", (12, 10), (254, 254, 254)).save(source / "cat" / "pale.png")
    top, wide = both(source, tmp_path / "cache")
    assert counts(top.report) == {"computed": 9}
    assert counts(wide.report) == {"computed": 8, "rejected": 1}
    assert [why.path for why in wide.report.rejections] == ["cat/pale.png"]


def test_bits_do_not_depend_on_an_interruption(tmp_path: Path) -> None:
    source = write_images(tmp_path / "in", {"cat": 11, "dog": 12})
    whole = both(source, tmp_path / "whole", task_rows=5)

    class Stops(TwoCuts):
        def several(self, pixels: np.ndarray) -> tuple[np.ndarray, ...]:
            if self.passes == 6:
                raise KeyboardInterrupt
            return super().several(pixels)

    with pytest.raises(KeyboardInterrupt):
        both(source, tmp_path / "halved", Stops(), task_rows=5)
    resumed = both(source, tmp_path / "halved", task_rows=5)
    for one, other in zip(resumed, whole, strict=True):
        assert 0 < one.report.reused < 23
        assert shards(one.report) == shards(other.report)


def test_kill_9_in_the_midst_loses_no_store(tmp_path: Path) -> None:
    source, cache = write_images(tmp_path / "in", {"cat": 1500, "dog": 700}), tmp_path / "cache"
    command = [sys.executable, "-m", "bottleneck", "extract", str(source), "--base", "tests.fakes:slow_cuts"]
    command += ["--cut", "top,wide", "--cache", str(cache), "--json"]
    running = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while len(list(cache.glob("stores/fake-wide-*/shards/*.json"))) < 1:
        assert running.poll() is None
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    told = json.loads(done.stdout)["cuts"]
    for one in told.values():
        assert one["rows"] == 2200
        assert one["reused"] >= 1024
        assert one["computed"] <= 1176


def test_the_command_fills_a_store_for_each_cut(tmp_path: Path) -> None:
    source = write_images(tmp_path / "in", {"cat": 6})
    options = [
        "extract",
        str(source),
        "--base",
        CUTS,
        "--cut",
        "top,wide",
        "--cache",
        str(tmp_path / "cache"),
    ]

    def run(*more: str) -> Any:
        return json.loads(CliRunner().invoke(app, [*options, *more, "--json"], catch_exceptions=False).stdout)

    left = run("--dry-run")["cuts"]
    assert [one["bytes"] for one in left.values()] == [6 * 6 * 4, 6 * 12 * 4]
    assert left["wide"]["prediction"]["bytes"] > left["top"]["prediction"]["bytes"]
    assert not (tmp_path / "cache" / "stores").exists()
    done = run()["cuts"]
    assert {cut: (one["computed"], one["cut"], one["shape"]) for cut, one in done.items()} == {
        "top": (6, "top", [6]),
        "wide": (6, "wide", [12]),
    }
    table = CliRunner().invoke(app, options).stdout
    assert "fake at top" in table and "fake at wide" in table


def test_views_are_made_for_each_cut(tmp_path: Path) -> None:
    source = write_images(tmp_path / "in", {"cat": 4})
    found = extract_cuts(source, CUTS, ["top", "wide"], cache=tmp_path / "cache", views=3)
    assert [done.views.computed for done in found.values() if done.views] == [8, 8]


def test_too_many_bad_images_at_one_cut_fail_the_run(tmp_path: Path) -> None:
    from PIL import Image

    source = write_images(tmp_path / "in", {"cat": 3})
    for number in range(2):
        pale = Image.new("RGB", (12, 10 + number), (254, 254, 254))
        pale.save(source / "cat" / f"pale{number}.png")
    with pytest.raises(TooManyBadImages):
        extract_cuts(source, CUTS, ["top", "wide"], cache=tmp_path / "cache")


def test_what_cannot_be_asked_is_refused_by_name(tmp_path: Path) -> None:
    source = write_images(tmp_path / "in", {"cat": 2})
    with pytest.raises(UsageError, match="takes several, and fills a store for each"):
        bottleneck.features(source, CUTS, cut="top,wide", cache=tmp_path / "cache")
    for wrong in (["top", "top"], []):
        with pytest.raises(UsageError, match="each once"):
            extract_cuts(source, CUTS, wrong, cache=tmp_path / "cache")
    with pytest.raises(UsageError, match="a forward pass of its own, with 1"):
        extract_cuts(source, "tests.fakes:base", ["top", "wide"], cache=tmp_path / "cache")


@pytest.mark.keras
def test_one_network_gives_the_bytes_of_each_cut_alone(tmp_path: Path) -> None:
    from tests.models.tiny_network import PREPROCESSING, network

    source = write_images(tmp_path / "in", {"cat": 9, "dog": 8}, size=(20, 20))
    options = {"preprocessing": PREPROCESSING, "pooling": "avg"}
    cuts = ["block1_pool", "block2_out"]
    together = extract_cuts(source, network(), cuts, cache=tmp_path / "both", **options)
    for cut in cuts:
        alone = bottleneck.extract(source, network(), cut=cut, cache=tmp_path / cut, **options)
        assert together[cut].spec == alone.spec
        assert shards(together[cut]) == shards(alone)
    with pytest.raises(UsageError, match="two of these are one place"):
        extract_cuts(source, network(), ["output", "block3_out"], cache=tmp_path / "c", **options)


@pytest.mark.keras
def test_random_weights_are_calibrated_alike_whatever_is_cut_beside(tmp_path: Path) -> None:
    from bottleneck.bases.load import load_base, load_cuts

    def asked(cut: str) -> BaseRequest:
        return BaseRequest(base="squeezenet", weights="random:0", size=64, cut=cut, pooling="avg")

    cuts = ("fire8", "pool3", "fire4_concat")
    together = load_cuts([asked(cut) for cut in cuts], Cache(tmp_path))
    for cut, base in zip(cuts, together, strict=True):
        alone = load_base(asked(cut), Cache(tmp_path))
        assert base.spec == alone.spec
        for one, other in zip(base.model.get_weights(), alone.model.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)


def test_workers_of_an_engine_fill_several_stores_too(tmp_path: Path) -> None:
    source = write_images(tmp_path / "in", {"cat": 9})
    options = {"cache": tmp_path / "cache", "workers": 2, "engine": "local"}
    found = extract_cuts(source, CUTS, ["top", "wide"], **options)
    assert [counts(done) for done in found.values()] == [{"computed": 9}] * 2
    alone = bottleneck.extract(source, "tests.fakes:base", cache=tmp_path / "top")
    assert shards(found["top"]) == shards(alone)
