"""Stores of newer and older formats: rows 42 and 43."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import bottleneck
from bottleneck.errors import NewerFormat
from bottleneck.schema import Cache
from bottleneck.store.read import open_store
from tests.fakes import write_images
from tests.faults.reference_stores import (
    FAKE,
    SPEC,
    check_served,
    edit_record,
    serve,
    shards_of,
    snapshot,
    some_store,
)


@pytest.mark.fault(42)
@pytest.mark.parametrize("name", ["recipe.json", "record"])
@pytest.mark.parametrize("version", [3, 4, 10**6])
def test_a_newer_store_is_left_alone(
    tmp_path: Path, cache: Cache, worker_here: None, name: str, version: int
) -> None:
    """Reading and building both refuse, say what is needed, and touch nothing."""
    images = write_images(tmp_path / "in", {"x": 5})
    bottleneck.extract(images, FAKE, cache=cache.root)
    folder = shards_of(cache)
    path = next(folder.glob("*.json")) if name == "record" else folder.parent / name
    document = json.loads(path.read_bytes())
    # What a later format adds is not known here; whatever it is, the number decides.
    path.write_text(json.dumps({**document, "format": version, "more": [1, 2]}))
    write_images(images, {"y": 2}, seed=1)
    before = snapshot(cache.stores)
    for use in (
        lambda: open_store(cache, SPEC),
        lambda: bottleneck.extract(images, FAKE, cache=cache.root),
        lambda: bottleneck.features(images, FAKE, cache=cache.root),
    ):
        with pytest.raises(NewerFormat, match=rf"format {version}\b.*reads 1.*upgrade"):
            use()
    assert snapshot(cache.stores) == before


@pytest.mark.fault(42)
@pytest.mark.parametrize("version", [0, -1, "2", None, 1.5, True, [2]])
def test_a_format_that_is_no_number_is_damage(cache: Cache, version: object) -> None:
    keys, rows = some_store(cache, 1, 5)
    path = next(shards_of(cache).glob("*.json"))
    edit_record(path, lambda d: d.update(format=version))
    served = serve(cache, keys, rows)
    assert served.verdict == ("harmless" if version is True else "detected"), served


@pytest.mark.fault(43)
def test_the_store_of_each_format_is_read_where_nothing_can_be_written(tmp_path: Path) -> None:
    """By a copy without write permission, so that no reader can put anything right as it goes."""
    from tests.formats.make import rows as made

    for folder in sorted(Path(__file__).parents[1].joinpath("formats").iterdir()):
        if not folder.name.isdigit():
            continue
        copy = tmp_path / folder.name
        shutil.copytree(folder, copy)
        for path in [copy, *copy.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        keys, features = made()
        assert serve(Cache(copy), keys, features).verdict == "harmless"


@pytest.mark.fault(43)
def test_a_store_of_an_older_format_goes_on(tmp_path: Path, worker_here: None) -> None:
    """Rows are added to a copy of the oldest kept store, and what it held is served as before."""
    from tests.formats.make import rows as made

    oldest = Path(__file__).parents[1] / "formats" / "1"
    cache = Cache(tmp_path / "cache")
    shutil.copytree(oldest, cache.root)
    before = snapshot(cache.root)
    images = write_images(tmp_path / "in", {"x": 5})
    assert bottleneck.extract(images, FAKE, cache=cache.root).computed == 5
    assert check_served(images, cache.root) == 5
    keys, features = made()
    store = open_store(cache, SPEC)
    np.testing.assert_array_equal(store.gather(store.find(keys)), features)
    after = snapshot(cache.root)
    assert {name: after.get(name) for name in before} == before
