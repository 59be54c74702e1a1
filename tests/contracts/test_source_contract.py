"""What every source in the catalog must do, on the same few images in each form."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bottleneck import catalog
from bottleneck.contracts import Source
from bottleneck.errors import Rejected
from bottleneck.sources import open_source
from bottleneck.system import objects
from tests.sources.tiny_files import png, tarred, tree, zipped

IMAGES = {f"{label}/{number}.png": 10 * at + number for at, label in enumerate("ab") for number in range(5)}


def _table(folder: Path) -> Path:
    tree(folder, dict(IMAGES))
    lines = [f"{path},{path[0]}" for path in IMAGES]
    (folder / "images.csv").write_text("\n".join(["path,label", *lines]) + "\n")
    return folder / "images.csv"


def _far(path: Path) -> str:
    """The same behind a URL."""
    for file in (path if path.is_dir() else path.parent).rglob("*.*"):
        objects.write_object(f"memory://{file}", file.read_bytes())
    return f"memory://{path}"


#: How each kind is given the images. A new source adds its line here.
MAKERS: dict[str, Callable[[Path], Path | str]] = {
    "folder": lambda folder: tree(folder, dict(IMAGES)),
    "table": _table,
    "zip": lambda folder: zipped(folder / "images.zip", dict(IMAGES)),
    "tar": lambda folder: tarred(folder / "images.tar", dict(IMAGES)),
    "remote folder": lambda folder: _far(tree(folder, dict(IMAGES))),
    "remote table": lambda folder: _far(_table(folder)),
    "remote archive": lambda folder: _far(zipped(folder / "images.zip", dict(IMAGES))),
}
KINDS = {**catalog.SOURCES, **catalog.REMOTE_SOURCES}


@pytest.fixture(params=sorted(KINDS))
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Source:
    assert request.param in MAKERS, f"the contract does not know how to make a {request.param} source"
    kind = catalog.resolve(KINDS[request.param])
    made = MAKERS[request.param](tmp_path)
    opened = open_source(made)
    assert type(opened) is kind, "another kind claims this location"
    return opened


def test_is_a_source(source: Source) -> None:
    assert isinstance(source, Source)
    assert Path(source.location).is_absolute() or source.location.startswith("memory:///")


def test_lists_every_image_once_with_its_label(source: Source) -> None:
    listed = {entry.path.decode(): entry.label for entry in source.entries()}
    assert listed == {path: path[0] for path in IMAGES}
    assert len(list(source.entries())) == len(IMAGES)


def test_entries_are_plain_values(source: Source) -> None:
    for entry in source.entries():
        assert isinstance(entry.path, bytes)
        assert len(entry.signature) == 5
        assert all(isinstance(number, int) and abs(number) < 1 << 63 for number in entry.signature)
        assert entry.group is None
        assert entry.split is None


def test_lists_the_same_again(source: Source) -> None:
    assert sorted(source.entries()) == sorted(source.entries())


def test_reads_the_very_bytes(source: Source) -> None:
    assert {path: source.read(path.encode()) for path in IMAGES} == {p: png(v) for p, v in IMAGES.items()}


def test_reads_without_listing_first(source: Source) -> None:
    assert open_source(source.location).read(b"a/1.png") == png(IMAGES["a/1.png"])


def test_reads_from_many_threads(source: Source) -> None:
    wanted = [path.encode() for path in IMAGES] * 40
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(source.read, wanted)) == [png(IMAGES[path.decode()]) for path in wanted]


def test_travels_by_pickle(source: Source) -> None:
    list(source.entries())
    again = pickle.loads(pickle.dumps(source))
    assert again == source
    assert again.read(b"b/4.png") == source.read(b"b/4.png")
    assert sorted(again.entries()) == sorted(source.entries())


def test_opened_again_it_is_equal(source: Source) -> None:
    assert open_source(source.location) == source
    assert hash(open_source(source.location)) == hash(source)


def test_nothing_is_passed_over_without_a_count(source: Source) -> None:
    list(source.entries())
    assert source.passed_over() == {}


def test_what_is_not_there_cannot_be_read(source: Source) -> None:
    with pytest.raises((OSError, Rejected)):
        source.read(b"a/none.png")


def test_claims_only_its_own(source: Source, tmp_path: Path) -> None:
    assert type(source).claims(source.location)
    assert not type(source).claims(str(tmp_path / "nothing.xyz"))
