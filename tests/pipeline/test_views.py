"""Views from the command line to the figures: cached, trained on, remembered by the run, averaged over."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import bottleneck
from bottleneck.cli import app, main
from bottleneck.errors import UsageError
from bottleneck.schema import DEFAULT_VIEWS, ViewPolicy
from tests.fakes import write_images

FAKE = "tests.fakes:base"
AUGMENT = "brightness=-0.3:0.1"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_images(tmp_path / "in", {"cat": 20, "dog": 20, "owl": 20})


def test_features_have_all_views_and_the_images_are_the_first(source: Path, tmp_path: Path) -> None:
    rows = bottleneck.features(source, FAKE, cache=tmp_path / "cache", views=4, augment=AUGMENT)
    assert rows.views is not None and rows.views.shape == (60, 4, 6)
    np.testing.assert_array_equal(rows.views[:, 0], rows.X[:])
    some = rows.where(rows.y == "dog")
    np.testing.assert_array_equal(np.asarray(some.views), rows.views[np.flatnonzero(rows.y == "dog")])
    loaded = rows.loaded()
    assert isinstance(loaded.X, np.ndarray) and loaded.views is not None
    assert np.shares_memory(loaded.X, loaded.views.flat), "the images are not held twice"
    np.testing.assert_array_equal(loaded.X, rows.X[:])
    np.testing.assert_array_equal(np.asarray(loaded.views), np.asarray(rows.views))
    streamed = rows.loaded(memory=100)
    assert not isinstance(streamed.X, np.ndarray)
    assert bottleneck.features(source, FAKE, cache=tmp_path / "cache").views is None


def test_a_run_learns_from_views_remembers_them_and_is_measured_on_the_images(
    source: Path, tmp_path: Path
) -> None:
    session: dict[str, Any] = {"cache": tmp_path / "cache"}
    # The share of each class that is held out is the same for both runs: it is a matter of contents.
    plain = bottleneck.train(source, FAKE, run=tmp_path / "plain", **session)
    views = bottleneck.train(source, FAKE, run=tmp_path / "views", views=4, augment=AUGMENT, **session)
    remembered = json.loads((tmp_path / "views" / "run.json").read_text())["views"]
    assert remembered["count"] == 4
    assert ViewPolicy.model_validate(remembered["policy"]) == ViewPolicy.parse(AUGMENT)
    assert plain.folder.run.views is None
    assert views.counts == plain.counts
    a, b = (run.folder.head().coef_ for run in (plain, views))
    assert np.abs(a - b).max() > 1e-3, "the views reached the head"
    assert views.extraction.views is not None and views.extraction.views.computed == 180
    # Figures are of the images as they are, by whatever way they are asked for.
    again = bottleneck.evaluate(tmp_path / "views", trust=True)
    assert {name: m.accuracy for name, m in again.items()} == {
        name: m.accuracy for name, m in views.metrics.items()
    }
    mean = bottleneck.evaluate(tmp_path / "views", average_views=True, trust=True)
    assert set(mean) == set(again)
    assert any(mean[name].log_loss != again[name].log_loss for name in mean)
    by_hand = bottleneck.features(source, FAKE, views=4, augment=AUGMENT, **session)
    head = views.folder.head()
    assert by_hand.views is not None
    chances = np.stack([head.predict_proba(by_hand.views[:, k]) for k in range(4)]).mean(axis=0)
    said = np.array(views.folder.run.classes)[chances.argmax(axis=1)]
    right = sum(m.accuracy * m.images for m in mean.values())
    assert right == pytest.approx((said == by_hand.y).sum())


def test_averaging_needs_no_source_while_the_views_are_cached(source: Path, tmp_path: Path) -> None:
    bottleneck.train(source, FAKE, run=tmp_path / "run", cache=tmp_path / "cache", views=3, augment=AUGMENT)
    shutil.move(source, tmp_path / "away")
    before = bottleneck.evaluate(tmp_path / "run", average_views=True, trust=True)
    # Another source: its views are computed first.
    other = write_images(tmp_path / "more", {"cat": 4, "dog": 4}, seed=7)
    found = bottleneck.evaluate(tmp_path / "run", other, average_views=True, trust=True)
    assert found["all"].images == 8
    shutil.rmtree(next((tmp_path / "cache" / "stores").glob("*-views-*")))
    shutil.move(tmp_path / "away", source)
    assert bottleneck.evaluate(tmp_path / "run", average_views=True, trust=True) == before


def test_averaging_without_views_is_refused(source: Path, tmp_path: Path) -> None:
    bottleneck.train(source, FAKE, run=tmp_path / "run", cache=tmp_path / "cache")
    with pytest.raises(UsageError, match="trained without views"):
        bottleneck.evaluate(tmp_path / "run", average_views=True, trust=True)


def test_folds_and_lost_views_are_told(source: Path, tmp_path: Path) -> None:
    said: list[str] = []
    # Brightness of one whole range makes pictures white here and there: the fake base has no features for these.
    done = bottleneck.train(
        source,
        FAKE,
        run=tmp_path / "run",
        cache=tmp_path / "cache",
        views=5,
        augment="brightness=-0.2:1",
        folds=3,
        max_bad=0.5,
        on_message=said.append,
    )
    assert len(done.folder.figures.folds) == 3
    lost = done.extraction.views.rejected if done.extraction.views else 0
    assert 0 < lost < 120
    assert any(f"{lost} of 240 augmented views have no features" in text for text in said)


def run(*arguments: str) -> Any:
    done = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    return json.loads(done.stdout)


def test_the_command_line_says_what_is_there_and_what_is_to_come(source: Path, tmp_path: Path) -> None:
    options = ["--base", FAKE, "--cache", str(tmp_path / "cache"), "--augment", AUGMENT, "--views"]
    left = run("extract", str(source), *options, "3", "--dry-run")
    assert (left["to_compute"], left["views"]["to_compute"]) == (60, 120)
    assert not (tmp_path / "cache" / "stores").exists()
    done = run("extract", str(source), *options, "3")
    assert (done["computed"], done["views"]["computed"], done["views"]["images"]) == (60, 120, 120)
    assert ViewPolicy.parse(done["views"]["policy"]) == ViewPolicy.parse(AUGMENT)
    left = run("extract", str(source), *options, "5", "--dry-run")
    assert (left["to_compute"], left["views"]["to_compute"], left["views"]["reused"]) == (0, 120, 120)
    table = CliRunner().invoke(app, ["extract", str(source), *options, "3"]).stdout
    assert "0 computed, 120 reused" in table and "brightness=-0.3:0.1" in table


def test_the_help_names_the_default_policy() -> None:
    text = CliRunner().invoke(app, ["extract", "--help"], terminal_width=2000).stdout
    default = re.search(r"\[default: (flip=[^\]]*)\]", " ".join(text.split()))
    assert default is not None
    assert ViewPolicy.parse(default[1]) == DEFAULT_VIEWS


@pytest.mark.parametrize(
    "arguments", [["--augment", "rotation=0.1"], ["--views", "0"], ["--views", "3", "--augment", "tilt=1"]]
)
def test_what_cannot_be_is_wrong_usage(
    arguments: list[str], source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["extract", str(source), "--base", FAKE, "--cache", str(tmp_path / "cache"), *arguments])
    assert stopped.value.code == 2
    assert "--views" in (said := capsys.readouterr().err) or "--augment" in said


def test_a_damaged_views_store_is_repaired_from_its_images(source: Path, tmp_path: Path) -> None:
    from bottleneck.pipeline import stores

    session: dict[str, Any] = {"cache": tmp_path / "cache"}
    rows = bottleneck.features(source, FAKE, views=4, augment=AUGMENT, **session)
    expected = np.asarray(rows.views)
    shard = next((tmp_path / "cache" / "stores").glob("*-views-*/shards/*.h5"))
    before = shard.read_bytes()
    image = bytearray(before)
    row = expected[7, 2].tobytes()
    image[image.index(row) + 5] ^= 1
    shard.write_bytes(image)
    assert not all(checked.sound for checked in stores.verify(**session))
    repaired = {
        c.folder.name: c for c in stores.verify(repair=source, sample=20, seed=1, trust=True, **session)
    }
    assert all(c.sound for c in repaired.values())
    made = next(c for name, c in repaired.items() if "-views-" in name)
    assert made.sample is not None and made.sample.rows == 20
    again = bottleneck.features(source, FAKE, views=4, augment=AUGMENT, **session)
    np.testing.assert_array_equal(np.asarray(again.views), expected)


def test_compacting_and_pruning_know_whose_views_they_are(source: Path, tmp_path: Path) -> None:
    from bottleneck.pipeline import stores

    session: dict[str, Any] = {"cache": tmp_path / "cache"}
    for count in (2, 3, 4):  # three shards
        rows = bottleneck.features(source, FAKE, views=count, augment=AUGMENT, **session)
    expected = np.asarray(rows.views)
    stores.compact(**session)
    folder = next((tmp_path / "cache" / "stores").glob("*-views-*"))
    assert len(list((folder / "shards").glob("*.h5"))) == 1
    after = bottleneck.extract(source, FAKE, views=4, augment=AUGMENT, **session)
    assert after.views is not None and (after.views.computed, after.views.reused) == (0, 180)
    shutil.rmtree(source / "cat")
    stores.prune(keep=[source], yes=True, **session)
    left = bottleneck.extract(source, FAKE, views=4, augment=AUGMENT, **session)
    assert left.views is not None and (left.views.computed, left.views.reused) == (0, 120)
    assert stores.show_store(folder.name, **session).rows == 120
    again = bottleneck.features(source, FAKE, views=4, augment=AUGMENT, **session)
    np.testing.assert_array_equal(np.asarray(again.views), expected[20:])
