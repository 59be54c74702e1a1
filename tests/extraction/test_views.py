"""Views through the one pass: each drawn from its content alone, only the missing ones computed, files read once."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bottleneck.errors import TooManyBadImages, UsageError
from bottleneck.extraction.report import Extraction
from bottleneck.extraction.worker.main import Worker
from bottleneck.inventory.scan import scan_source
from bottleneck.pipeline.extract import extract_missing
from bottleneck.pipeline.session import Request, Session
from bottleneck.schema import BaseRequest, Cache, Inventory, ViewPolicy
from bottleneck.sources.open import open_source
from bottleneck.store.read import Store, open_store
from bottleneck.store.views import stand_ins, view_keys, view_rows, views_wanted
from bottleneck.system.progress import Silent
from tests.fakes import SIZE, FakeForward, write_images
from tests.in_process import extract_one

FAKE = "tests.fakes:base"
POLICY = ViewPolicy.parse("brightness=-0.3:0.1")


def here(
    source: Path,
    cache: Path,
    count: int,
    forward: FakeForward | None = None,
    *,
    task_rows: int | None = None,
    reverse: bool = False,
) -> tuple[Extraction, Inventory, Store, Store]:
    """Images and views extracted in this process; the inventory, and the two stores."""
    opened, where = open_source(source), Cache(cache)
    request, worker = BaseRequest(base="object:fake"), Worker(forward or FakeForward(), opened, where)

    def listed() -> Inventory:
        found = scan_source(opened, where.scans)
        return replace(found, table=found.table.take(np.arange(len(found))[::-1])) if reverse else found

    _, inventory, store = extract_one(
        opened, listed, request, where, Silent(), worker=worker, task_rows=task_rows
    )
    wanted = views_wanted(inventory, store.find(inventory.keys) >= 0, count)
    done, _, made = extract_one(
        opened, lambda: wanted, request, where, Silent(), worker=worker, task_rows=task_rows, views=POLICY
    )
    return done, inventory, store, made


def by_hand(source: Path, path: bytes, number: int) -> np.ndarray:
    """What view `number` of a file must give."""
    forward = FakeForward()
    data = (source / os.fsdecode(path)).read_bytes()
    key = hashlib.sha256(data).digest()[:30] + number.to_bytes(2, "big")
    batch = np.zeros((forward.batch, SIZE, SIZE, 3), np.float32)
    batch[0] = forward.view(forward.decode(data), key, POLICY) if number else forward.decode(data)
    return forward.features(batch)[0]


def files(store: Store) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (store.folder / "shards").iterdir()}


def table_of(store: Store, keys: np.ndarray) -> bytes:
    return store.gather(store.find(keys)).tobytes()


def test_every_view_is_what_its_content_and_number_draw(tmp_path: Path) -> None:
    source = write_images(tmp_path / "in", {"cat": 7, "dog": 6})
    done, inventory, store, made = here(source, tmp_path / "cache", 4)
    assert (done.images, done.computed, done.reused, done.rejected) == (39, 39, 0, 0)
    assert made.folder.name == f"{store.folder.name}-views-{POLICY.fingerprint[:8]}"
    found = np.asarray(view_rows(store, made, inventory.keys, 4))
    for image, path in enumerate(inventory.table.column("path").to_pylist()):
        for number in range(4):
            np.testing.assert_array_equal(found[image, number], by_hand(source, path, number))
    assert len({row.tobytes() for row in found.reshape(52, -1)}) == 52, "every view is another one"


def test_raising_the_number_of_views_computes_only_the_new_ones(tmp_path: Path) -> None:
    source = write_images(tmp_path / "in", {"cat": 5, "dog": 4})
    _, inventory, _, first = here(source, tmp_path / "cache", 3)
    again = here(source, tmp_path / "cache", 3)[0]
    assert (again.computed, again.reused) == (0, 18)
    more, _, _, made = here(source, tmp_path / "cache", 6)
    assert (more.computed, more.reused) == (27, 18)
    fewer, _, _, _ = here(source, tmp_path / "cache", 2)
    assert (fewer.computed, fewer.reused) == (0, 9)
    # What six at once give is what three and three give.
    _, _, _, at_once = here(source, tmp_path / "other", 6)
    keys = view_keys(inventory.keys, 1, 6)
    assert table_of(made, keys) == table_of(at_once, keys)
    assert len(first) == 18


def test_order_task_size_and_batch_change_no_view(tmp_path: Path) -> None:
    source = write_images(tmp_path / "in", {"cat": 5, "dog": 4})
    _, inventory, _, made = here(source, tmp_path / "one", 4)
    keys = view_keys(inventory.keys, 1, 4)
    expected = table_of(made, keys)
    assert table_of(here(source, tmp_path / "cut", 4, task_rows=5)[3], keys) == expected
    assert table_of(here(source, tmp_path / "back", 4, reverse=True)[3], keys) == expected
    assert table_of(here(source, tmp_path / "batch", 4, FakeForward(batch=7))[3], keys) == expected


def test_a_file_is_read_and_decoded_once_for_its_views(tmp_path: Path) -> None:
    source = write_images(tmp_path / "in", {"cat": 5, "dog": 4})
    decoded: Counter[bytes] = Counter()

    class Counts(FakeForward):
        def decode(self, data: bytes) -> np.ndarray:
            decoded[hashlib.sha256(data).digest()] += 1
            return super().decode(data)

    here(source, tmp_path / "cache", 5, Counts())
    assert len(decoded) == 9
    # Once for the image, once for its four views, however many batches these fill.
    assert set(decoded.values()) == {2}


def test_bits_do_not_depend_on_an_interruption(tmp_path: Path) -> None:
    source = write_images(tmp_path / "in", {"cat": 6, "dog": 5})
    _, _, _, whole = here(source, tmp_path / "whole", 4, task_rows=5)
    calls = 0

    class Stops(FakeForward):
        def view(self, pixels: np.ndarray, key: bytes, policy: ViewPolicy) -> np.ndarray:
            nonlocal calls
            calls += 1
            if calls == 14:
                raise KeyboardInterrupt
            return super().view(pixels, key, policy)

    with pytest.raises(KeyboardInterrupt):
        here(source, tmp_path / "halved", 4, Stops(), task_rows=5)
    resumed, _, _, halved = here(source, tmp_path / "halved", 4, task_rows=5)
    assert 0 < resumed.reused < 33
    assert files(halved) == files(whole)


def test_a_view_without_a_row_is_a_rejection_and_the_image_stands_in(tmp_path: Path) -> None:
    source = write_images(tmp_path / "in", {"cat": 4, "dog": 3})

    class Fails(FakeForward):
        def view(self, pixels: np.ndarray, key: bytes, policy: ViewPolicy) -> np.ndarray:
            made = super().view(pixels, key, policy)
            # White: the fake base gives NaN.
            return np.full_like(made, 255) if key[31] == 2 and key[:30] == victim else made

    inventory = scan_source(open_source(source), tmp_path / "scans")
    victim = inventory.keys[3].tobytes()[:30]
    done, inventory, store, made = here(source, tmp_path / "cache", 4, Fails())
    assert done.rejected == 1 and done.computed == 20
    assert "NaN" in done.rejections[0].reason
    assert done.rejections[0].content == victim.hex() + "0002"
    assert stand_ins(made, inventory.keys, 4) == 1
    rows = np.asarray(view_rows(store, made, inventory.keys, 4))
    np.testing.assert_array_equal(rows[3, 2], rows[3, 0])
    # Lasting: it is not computed again.
    assert here(source, tmp_path / "cache", 4)[0].computed == 0


def test_views_of_a_file_that_changed_are_not_taken_from_its_new_bytes(tmp_path: Path) -> None:
    source = write_images(tmp_path / "in", {"cat": 3, "dog": 3})
    other = (write_images(tmp_path / "other", {"x": 1}, seed=99) / "x" / "000.png").read_bytes()

    class Changes(FakeForward):
        def view(self, pixels: np.ndarray, key: bytes, policy: ViewPolicy) -> np.ndarray:
            (source / "dog" / "002.png").write_bytes(other)
            return super().view(pixels, key, policy)

    done, inventory, store, made = here(source, tmp_path / "cache", 3, Changes(), task_rows=2)
    assert done.rejected == 2 and {r.path for r in done.rejections} == {"dog/002.png"}
    rows = np.asarray(view_rows(store, made, inventory.keys, 3))
    for image, path in enumerate(inventory.table.column("path").to_pylist()[:5]):
        np.testing.assert_array_equal(rows[image, 2], by_hand(source, path, 2))


def filled(source: Path, base: str, options: dict) -> tuple[Extraction, Inventory, Store]:
    session, request = Session.parse(options), Request.parse(base, options)
    (done,), inventory = extract_missing(session.open(source), request, session)
    return done.report, inventory, done.store


def test_a_worker_process_makes_them_and_copies_cost_nothing(tmp_path: Path) -> None:
    source = write_images(tmp_path / "in", {"cat": 4, "dog": 4})
    (source / "dog" / "copy.png").write_bytes((source / "cat" / "000.png").read_bytes())
    options = {"cache": tmp_path / "cache", "views": 3, "augment": str(POLICY)}
    report, inventory, store = filled(source, FAKE, options)
    assert report.computed == 8 and report.duplicates == 1
    assert report.views is not None
    assert (report.views.computed, report.views.duplicates) == (16, 2)
    made = open_store(Cache(tmp_path / "cache"), report.views.spec)
    rows = np.asarray(view_rows(store, made, inventory.keys, 3))
    for image, path in enumerate(inventory.table.column("path").to_pylist()):
        for number in range(3):
            np.testing.assert_array_equal(rows[image, number], by_hand(source, path, number))
    # Another policy is another store; the images themselves are reused.
    other, _, _ = filled(source, FAKE, {**options, "augment": "brightness=-0.3:0.1,seed=1"})
    assert (other.computed, other.views and other.views.computed) == (0, 16)
    # And without views nothing is said of them.
    assert filled(source, FAKE, {"cache": tmp_path / "cache"})[0].views is None


def test_an_image_that_ends_the_worker_costs_itself_and_its_views_are_not_tried(tmp_path: Path) -> None:
    source = write_images(tmp_path / "in", {"cat": 4, "dog": 4})
    victim = source / "cat" / "001.png"
    victim.write_bytes(victim.read_bytes() + b"ABORT")
    options = {"cache": tmp_path / "cache", "views": 3, "augment": str(POLICY), "max_bad": 0.5}
    report, _, _ = filled(source, FAKE, options)
    assert report.rejected == 1 and report.views is not None
    assert (report.views.images, report.views.computed) == (14, 14)


def test_too_many_bad_views_are_a_failure_too(tmp_path: Path) -> None:
    source = write_images(tmp_path / "in", {"cat": 4, "dog": 4})
    options = {"cache": tmp_path / "cache", "views": 3, "augment": "brightness=1:1"}
    with pytest.raises(TooManyBadImages, match=r"16 of 16 images \(each view counted\) have no") as error:
        filled(source, FAKE, options)
    assert error.value.exit_status == 3
    assert "cat/000.png, view 2: forward: the base fake gave NaN" in str(error.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"augment": "rotation=0.1"}, "give --views K"),
        ({"views": 3, "augment": "rotation=0,seed=4"}, "changes nothing"),
        ({"views": 0}, "views"),
        ({"views": 65537}, "65536"),
        ({"views": 3, "augment": "spin=1"}, "rotation"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_read(options: dict, says: str, tmp_path: Path) -> None:
    source = write_images(tmp_path / "in", {"cat": 1})
    with pytest.raises(UsageError, match=says):
        filled(source, FAKE, {"cache": tmp_path / "cache", **options})
    assert not (tmp_path / "cache").exists()


@pytest.mark.keras
def test_augmentation_really_reaches_the_features_of_a_keras_model(tmp_path: Path) -> None:
    """The pixels that a base sees are the augmented ones: against Keras on pixels made by hand."""
    import keras

    import bottleneck

    source = write_images(tmp_path / "in", {"cat": 3, "dog": 3}, size=(16, 16))
    model = keras.Sequential(
        [keras.Input((16, 16, 3)), keras.layers.Conv2D(5, 3), keras.layers.Flatten()], name="tiny"
    )
    options = {"cache": tmp_path / "cache", "preprocessing": "tf", "cut": "output", "views": 3}
    bright = bottleneck.features(source, model, augment="brightness=0.2:0.2", **options)
    flipped = bottleneck.features(source, model, augment="flip=horizontal", **options)
    assert bright.views is not None and flipped.views is not None
    pixels = np.stack([decoded(source / os.fsdecode(path)) for path in bright.paths])

    def by_hand(images: np.ndarray) -> np.ndarray:
        return np.asarray(model(images / 127.5 - 1, training=False))

    tight = {"atol": 1e-5, "rtol": 1e-5}
    np.testing.assert_allclose(bright.X[:], by_hand(pixels), **tight)
    shifted = by_hand(np.clip(pixels + np.float32(51), 0, 255))
    for number in (1, 2):
        np.testing.assert_allclose(bright.views[:, number], shifted, **tight)
        either = np.stack([by_hand(pixels), by_hand(pixels[:, :, ::-1])])
        off = np.abs(either - flipped.views[:, number]).max(axis=2)
        assert (off.min(axis=0) < 1e-4).all() and (off.max(axis=0) > 1e-2).all()
    turned = np.abs(np.asarray(flipped.views)[:, 1:] - flipped.X[:][:, None]).max(axis=2) > 1e-3
    assert turned.any() and not turned.all()


def decoded(path: Path) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(path).convert("RGB"), np.float32)
