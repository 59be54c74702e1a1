"""Which base a store belongs to: imported, recalled, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import bottleneck
from bottleneck.errors import BaseError, ChangedBase
from tests.extraction.fake_runs import FAKE, counts, here
from tests.fakes import FakeForward, write_images


def test_a_base_that_cannot_be_imported_is_named(tmp_path: Path) -> None:
    source = write_images(tmp_path / "in", {"cat": 3})
    for base, words in [
        ("tests.fakes:broken_base", "libcudart"),
        ("tests.fakes:no_such", "no_such"),
        ("no_such_module:base", "no_such_module"),
    ]:
        with pytest.raises(BaseError, match=words):
            bottleneck.extract(source, base, cache=tmp_path / "cache")


@pytest.mark.fault(52)
def test_other_weights_are_another_store(tmp_path: Path) -> None:
    source, cache = write_images(tmp_path / "in", {"cat": 3}), tmp_path / "cache"
    first = bottleneck.extract(source, FAKE, cache=cache)
    other = bottleneck.extract(source, "tests.fakes:other_base", cache=cache)
    assert counts(other) == {"computed": 3}
    assert other.store != first.store


def test_a_base_that_is_code_proves_itself_before_a_row_is_served(tmp_path: Path) -> None:
    class Reads(FakeForward):
        """What it computes with lies in a file."""

        def features(self, pixels: np.ndarray) -> np.ndarray:
            return super().features(pixels) * np.float32((tmp_path / "factor").read_text())

    source, cache = write_images(tmp_path / "in", {"cat": 3}), tmp_path / "cache"
    (tmp_path / "factor").write_text("2")
    done, _, _ = here(source, cache, Reads())
    assert counts(here(source, cache, Reads())[0]) == {"reused": 3}
    (tmp_path / "factor").write_text("2.1")
    before = sorted(cache.rglob("*"))
    with pytest.raises(ChangedBase, match=r"though code and weights look the same.*not served"):
        here(source, cache, Reads())
    assert [path for path in sorted(cache.rglob("*")) if "log" not in path.parts] == [
        path for path in before if "log" not in path.parts
    ]
    (done.store / "canary.f32").unlink()
    with pytest.raises(ChangedBase, match="canary images differ, though"):
        here(source, cache, Reads())
    (tmp_path / "factor").write_text("2")
    assert counts(here(source, cache, Reads())[0]) == {"reused": 3}


def test_a_function_proves_itself_in_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "changing.py").write_text(
        "import numpy as np\nfrom pathlib import Path\nfrom tests.fakes import FakeForward\n"
        "class Reads(FakeForward):\n    def features(self, pixels):\n"
        "        return super().features(pixels) * np.float32(Path('factor').read_text())\n"
        "def base():\n    return Reads()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    source, cache = write_images(tmp_path / "in", {"cat": 3}), tmp_path / "cache"
    Path("factor").write_text("2")
    assert counts(bottleneck.extract(source, "changing:base", cache=cache)) == {"computed": 3}
    assert counts(bottleneck.extract(source, "changing:base", cache=cache)) == {"reused": 3}
    Path("factor").write_text("3")
    with pytest.raises(ChangedBase, match="not served"):
        bottleneck.features(source, "changing:base", cache=cache)


@pytest.mark.fault(53)
def test_a_machine_whose_numbers_differ_may_not_append(tmp_path: Path) -> None:
    class Drifts(FakeForward):
        def features(self, pixels: np.ndarray) -> np.ndarray:
            return super().features(pixels) * np.float32(1.01)

    source, cache = write_images(tmp_path / "in", {"cat": 3}), tmp_path / "cache"
    here(source, cache)
    write_images(source, {"dog": 2}, seed=4)
    with pytest.raises(ChangedBase, match="canary images differ by"):
        here(source, cache, Drifts())
    assert counts(here(source, cache)[0]) == {"computed": 2, "reused": 3}
