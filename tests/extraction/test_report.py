"""What an extraction says of itself: classes after skipping, what float16 cost, one log a run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottleneck.cli.tables.extraction import extraction_table
from bottleneck.forward.drift import measure_rounding, worst_rounding
from bottleneck.schema import Rounding
from tests.extraction.fake_runs import counts, here
from tests.fakes import FakeForward, half_base, rows_by_hand, write_images


def text_of(done: object) -> str:
    from rich.console import Console

    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        console.print(extraction_table(done))
    return console.export_text()


def test_the_balance_of_classes_after_skipping_is_said(tmp_path: Path) -> None:
    source, cache = write_images(tmp_path / "in", {"cat": 5, "dog": 4}), tmp_path / "cache"
    whole, _, _ = here(source, cache)
    assert "Classes after skipping" not in text_of(whole)
    (source / "dog" / "page.png").write_bytes(b"<html>")
    (source / "dog" / "copy.png").write_bytes((source / "cat" / "000.png").read_bytes())
    done, _, _ = here(source, cache)
    assert done.to_json()["classes"] == {
        "cat": {"images": 5, "rows": 5},
        "dog": {"images": 6, "rows": 5},
    }
    assert "Classes after skipping" in text_of(done)


def test_float16_says_what_it_costs_and_the_worst_shard_counts(tmp_path: Path) -> None:
    source, cache = write_images(tmp_path / "in", {"cat": 6, "dog": 6}), tmp_path / "cache"
    done, _, store = here(source, cache, half_base(), task_rows=4)
    records = [file.record.rounding for file in store.shards.files]
    assert len(records) == 3
    assert all(record is not None for record in records)
    assert done.rounding == Rounding(
        relative=max(r.relative for r in records if r), cosine=min(r.cosine for r in records if r)
    )
    full = np.stack(list(rows_by_hand(source, FakeForward(scale=3000.0)).values())).astype(np.float64)
    stored = np.stack(list(rows_by_hand(source, half_base()).values())).astype(np.float64)
    by_hand = (np.linalg.norm(stored - full, axis=1) / np.linalg.norm(full, axis=1)).max()
    assert done.rounding.relative == pytest.approx(by_hand, rel=1e-5)
    assert 0 < done.rounding.relative < 2**-11
    assert done.to_json()["rounding"] == done.rounding.model_dump()
    assert "relative error up to" in text_of(done)
    again, _, _ = here(source, cache, half_base())
    assert again.rounding == done.rounding
    plain, _, _ = here(source, tmp_path / "other")
    assert plain.rounding is None


@pytest.mark.fault(53)
def test_rows_of_another_environment_are_said_even_where_the_canary_agrees(tmp_path: Path) -> None:
    source, cache = write_images(tmp_path / "in", {"cat": 5}), tmp_path / "cache"
    first, _, _ = here(source, cache)
    assert first.environments == 1
    assert "numeric environments" not in text_of(first)
    write_images(source, {"dog": 5}, seed=1)
    elsewhere = FakeForward()
    elsewhere.environment = {"forward": "fake 1", "isa": "another"}
    done, _, _ = here(source, cache, elsewhere)
    assert (done.computed, done.environments, done.to_json()["environments"]) == (5, 2, 2)
    assert "2 numeric environments" in text_of(done)


@given(st.integers(0, 1000), st.integers(1, 12), st.integers(1, 9))
def test_rounding_is_what_plain_numpy_says(seed: int, rows: int, width: int) -> None:
    draw = np.random.default_rng(seed)
    full = (100 + draw.normal(size=(rows, width))).astype(np.float32)
    stored = full.astype(np.float16)
    x, y = full.astype(np.float64), stored.astype(np.float64)
    found = measure_rounding(full, stored)
    assert found.relative == pytest.approx(
        max(np.linalg.norm(b - a) / np.linalg.norm(a) for a, b in zip(x, y, strict=True)), rel=1e-5, abs=1e-12
    )
    mean = x.mean(axis=0)
    cosines = [
        float((a - mean) @ (b - mean) / np.linalg.norm(a - mean) / np.linalg.norm(b - mean))
        for a, b in zip(x, y, strict=True)
        if np.linalg.norm(a - mean) > 1e-6 * np.linalg.norm(a) and (b != mean).any()
    ]
    assert found.cosine == pytest.approx(min([1.0, *cosines]), abs=1e-6)


def test_a_raw_cosine_would_hide_what_the_centred_one_shows() -> None:
    full = (2000 + np.random.default_rng(0).normal(size=(50, 20)) * 0.4).astype(np.float32)
    assert measure_rounding(full, full.astype(np.float16)).cosine < 0.9


def test_nothing_is_worst_of_nothing() -> None:
    assert worst_rounding([]) is None
    zeros = np.zeros((2, 3), np.float32)
    assert measure_rounding(zeros, zeros.astype(np.float16)) == Rounding(relative=0.0, cosine=1.0)


def test_each_run_with_work_leaves_one_small_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, cache = write_images(tmp_path / "in", {"cat": 6}), tmp_path / "cache"
    done, _, _ = here(source, cache, task_rows=4)
    (path,) = (done.store / "log").iterdir()
    log = json.loads(path.read_text())
    assert (log["ended"], log["computed"], log["rejected"], log["tasks"]) == ("done", 6, 0, 2)
    assert log["request"]["base"] == "object:fake"
    assert log["environment"]["python"]
    assert path.stat().st_size < 4096
    here(source, cache)
    assert len(list((done.store / "log").iterdir())) == 1
    write_images(source, {"dog": 2}, seed=3)
    real = Path.open

    def full(self: Path, *arguments: object, **more: object) -> object:
        if self.parent.name == "log":
            raise OSError(28, "No space left on device")
        return real(self, *arguments, **more)

    monkeypatch.setattr(Path, "open", full)
    assert counts(here(source, cache)[0]) == {"computed": 2, "reused": 6}
    assert len(list((done.store / "log").iterdir())) == 1
