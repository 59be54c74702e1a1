"""Images that forms are compared on: unseen ones first, classes in turn, and only those still there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bottleneck
from bottleneck.errors import UsageError
from bottleneck.models import sample_images
from bottleneck.models.merge import RunModel
from bottleneck.models.sample_images import LEARNT_FIRST, UNSEEN_FIRST, run_images, spread_out
from bottleneck.schema import Cache
from bottleneck.store.read import open_store
from tests.fakes import FakeForward, write_images
from tests.in_process import FAKE, InProcessWorker


def keys(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32)).astype(np.uint8)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["train", "validation", "test"])), max_size=40)
)
def test_splits_come_as_asked_and_within_one_classes_take_turns(rows: list[tuple[str, str]]) -> None:
    labels, splits = [r[0] for r in rows], [r[1] for r in rows]
    order = spread_out(labels, splits, keys(len(rows)), UNSEEN_FIRST)
    assert sorted(order) == list(range(len(rows)))
    ranks = [UNSEEN_FIRST.index(splits[i]) for i in order]
    assert ranks == sorted(ranks)
    for split in UNSEEN_FIRST:
        mine = [labels[i] for i in order if splits[i] == split]
        for end in range(len(mine)):
            counts = {name: mine[:end].count(name) for name in set(mine)}
            # No class is asked again while another one has images left that were asked less often.
            for count in counts.values():
                assert all(other >= count - 1 or other == mine.count(n) for n, other in counts.items())
            assert sum(counts.values()) == end


def test_the_order_depends_on_contents_and_not_on_the_tables_order() -> None:
    contents, labels, splits = keys(30), list("ab") * 15, ["train", "test", "validation"] * 10
    turned = np.random.default_rng(1).permutation(30)
    first = contents[spread_out(labels, splits, contents, UNSEEN_FIRST)]
    second = contents[turned][
        spread_out([labels[i] for i in turned], [splits[i] for i in turned], contents[turned], UNSEEN_FIRST)
    ]
    np.testing.assert_array_equal(first, second)


def test_copies_of_an_image_count_once_and_unknown_splits_come_last() -> None:
    contents = np.concatenate([keys(3), keys(3)])
    order = spread_out(["a"] * 6, ["train"] * 3 + ["validation"] * 3, contents, UNSEEN_FIRST)
    assert len(order) == 3
    order = spread_out(["a", "a"], [None, "train"], keys(2), UNSEEN_FIRST)
    assert order.tolist() == [1, 0]


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[RunModel, Cache]:
    monkeypatch.setattr("bottleneck.extraction.run.ExtractionRun.worker_type", InProcessWorker)
    source = write_images(tmp_path / "in", {"cat": 20, "dog": 20})
    done = bottleneck.train(source, FAKE, run=tmp_path / "run", cache=tmp_path / "cache", validation=0.25)
    cache = Cache(tmp_path / "cache")
    store: Any = open_store(cache, FakeForward().spec)
    # Reading images needs neither base nor head.
    return RunModel(done.folder, None, FakeForward(), None, store), cache  # type: ignore[arg-type]


def test_own_images_come_with_their_files_pixels_and_classes(trained: tuple) -> None:
    model, cache = trained
    found = run_images(model, cache, 12)
    assert len(found) == len(found.files) == 12
    splits = dict(
        zip(
            (r.content for r in model.folder.inventory()),
            (r.split for r in model.folder.inventory()),
            strict=True,
        )
    )
    labels = dict(
        zip(
            (r.content for r in model.folder.inventory()),
            (r.label for r in model.folder.inventory()),
            strict=True,
        )
    )
    held_out = sum(split == "validation" for split in splits.values())
    assert [splits[c.tobytes()] for c in found.contents[: min(12, held_out)]] == ["validation"] * min(
        12, held_out
    )
    assert found.unseen == min(12, held_out) < 12
    # What it learnt from says nothing about how good a form is.
    assert found.truth[found.unseen :].tolist() == [-1] * (12 - found.unseen)
    known = [model.folder.run.classes[i] for i in found.truth[: found.unseen]]
    assert known == [labels[c.tobytes()] for c in found.contents[: found.unseen]]
    for data, pixels in zip(found.files, found.pixels, strict=True):
        np.testing.assert_array_equal(model.forward.decode(data), pixels)


def test_images_that_calibrate_are_others_than_those_that_judge(trained: tuple) -> None:
    model, cache = trained
    judges = run_images(model, cache, 12)
    others = run_images(model, cache, 100, first=LEARNT_FIRST, without=judges.contents)
    assert len(others) == 28
    assert not {c.tobytes() for c in judges.contents} & {c.tobytes() for c in others.contents}


def test_an_image_that_changed_or_went_is_passed_over_and_another_stands_for_it(trained: tuple) -> None:
    model, cache = trained
    before = run_images(model, cache, 5)
    paths = {r.content: Path(model.folder.run.source, r.path.decode()) for r in model.folder.inventory()}
    gone, changed = (paths[c.tobytes()] for c in before.contents[:2])
    gone.unlink()
    changed.write_bytes(before.files[2])
    after = run_images(model, cache, 5)
    assert len(after) == 5
    assert [c.tobytes() for c in after.contents[:3]] == [c.tobytes() for c in before.contents[2:5]]


def test_without_any_image_there_is_nothing_to_compare_on(trained: tuple) -> None:
    model, cache = trained
    for image in model.folder.inventory():
        Path(model.folder.run.source, image.path.decode()).unlink()
    found = run_images(model, cache, 5)
    assert (len(found), found.pixels.shape, found.contents.shape) == (0, (0, 8, 8, 3), (0, 32))
    for name in ("cat", "dog"):
        Path(model.folder.run.source, name).rmdir()
    Path(model.folder.run.source).rmdir()
    with pytest.raises(UsageError, match="images are needed for the certificate"):
        run_images(model, cache, 5)


def test_large_images_and_files_are_held_in_bounded_numbers(
    trained: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, cache = trained
    monkeypatch.setattr(sample_images, "_FEWEST", 3)
    monkeypatch.setattr(sample_images, "_MOST_BYTES", 4 * 8 * 8 * 3 * 7)
    found = run_images(model, cache, 30)
    assert len(found) == 7
    room = 0
    for data in found.files:
        room += len(data)
    assert len(found.files) < 30
    assert room <= 4 * 8 * 8 * 3 * 7
    monkeypatch.setattr(sample_images, "_MOST_BYTES", 1)
    assert len(run_images(model, cache, 30)) == 3
