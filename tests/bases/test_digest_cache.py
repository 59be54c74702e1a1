from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bottleneck.bases.digest_cache import recall_digests, remember_digests
from bottleneck.schema import BaseRequest, Cache, Pixels, Preprocessing, Recipe, StoreSpec

SPEC = StoreSpec(
    base="vgg16",
    cut="block5_pool",
    shape=(7, 7, 512),
    recipe=Recipe(
        base_digest="a" * 64,
        pooling="none",
        pixels=Pixels(height=224, width=224),
        preprocessing=Preprocessing.parse("caffe"),
        precision="float32",
        dtype="float32",
    ),
)


def test_what_was_remembered_is_recalled_for_that_request_alone(tmp_path: Path) -> None:
    cache, request = Cache(tmp_path), BaseRequest(base="vgg16", weights="random:0")
    assert recall_digests(request, cache) is None
    remember_digests(request, SPEC, cache)
    assert recall_digests(request, cache) == SPEC
    assert recall_digests(request.model_copy(update={"batch": 7}), cache) == SPEC
    for change in (
        {"weights": "random:1"},
        {"size": 96},
        {"dtype": "float16"},
        {"cut": "fc6"},
        {"base": "vgg19"},
    ):
        assert recall_digests(request.model_copy(update=change), cache) is None


@pytest.mark.fault(52)
def test_files_count_by_their_bytes(tmp_path: Path) -> None:
    cache, file = Cache(tmp_path / "c"), tmp_path / "net.keras"
    request = BaseRequest(base=str(file))
    assert recall_digests(request, cache) is None
    file.write_bytes(b"one")
    remember_digests(request, SPEC, cache)
    assert recall_digests(request, cache) == SPEC
    (tmp_path / "d").mkdir()
    moved = file.rename(tmp_path / "d" / "net.keras")
    assert recall_digests(BaseRequest(base=str(moved)), cache) == SPEC
    moved.write_bytes(b"two")
    assert recall_digests(BaseRequest(base=str(moved)), cache) is None


def test_functions_are_never_remembered(tmp_path: Path) -> None:
    cache, request = Cache(tmp_path), BaseRequest(base="nets:build")
    remember_digests(request, SPEC, cache)
    assert recall_digests(request, cache) is None
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "list"])
def test_a_damaged_file_is_a_miss(tmp_path: Path, damage: str) -> None:
    cache, request = Cache(tmp_path), BaseRequest(base="vgg16")
    remember_digests(request, SPEC, cache)
    (path,) = tmp_path.rglob("*.json")
    text = path.read_text()
    path.write_text(
        {"flip": text.replace('"' + "a" * 64, '"b' + "a" * 63), "cut": text[:-40], "empty": "", "list": "[]"}[
            damage
        ]
    )
    assert recall_digests(request, cache) is None
    remember_digests(request, SPEC, cache)
    assert recall_digests(request, cache) == SPEC
    assert json.loads(path.read_text())["spec"]["base"] == "vgg16"


def test_a_cache_that_cannot_be_written_costs_the_memory_only(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    remember_digests(BaseRequest(base="vgg16"), SPEC, Cache(tmp_path / "file"))


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, pathlib\n"
        "from bottleneck.bases import digest_cache, layer_names, specs\n"
        "from bottleneck.schema import BaseRequest, Cache\n"
        "digest_cache.recall_digests(BaseRequest(base='vgg16'), Cache(pathlib.Path('nowhere'))); specs()\n"
        "print([m for m in ('keras', 'tensorflow', 'h5py', 'numpy', 'pandas') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
