"""Keras files that are not what they say: rows 49 and 52; the rest is marked where it is."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import bottleneck
from bottleneck.errors import BaseError
from bottleneck.schema import Cache
from tests.fakes import write_images
from tests.faults.plugin import regime
from tests.faults.reference_stores import python, snapshot

# ---------------------------------------------------------------------------------------------- 49: Keras files


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The members of a small `.keras` file."""
    import keras

    path = tmp_path_factory.mktemp("sound") / "net.keras"
    image = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu", name="conv")(image)
    keras.Model(image, keras.layers.GlobalAveragePooling2D()(x)).save(path)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(path: Path, members: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def with_layer(members: Mapping[str, bytes], layer: dict[str, Any]) -> dict[str, bytes]:
    """The same network with `layer` in place of its last one."""
    config = json.loads(members["config.json"])
    last = config["config"]["layers"][-1]
    last |= {"module": layer["module"], "class_name": layer["class_name"], "registered_name": layer.get("as")}
    last["config"] = {"name": last["name"], **layer["config"]}
    last.pop("build_config", None)
    return {**members, "config.json": json.dumps(config).encode()}


def weights(
    members: Mapping[str, bytes], change: Callable[[Any, Path], None], folder: Path
) -> dict[str, bytes]:
    buffer = io.BytesIO(members["model.weights.h5"])
    with h5py.File(buffer, "r+") as file:
        found: list[str] = []
        file.visit(lambda name: found.append(name) if name.endswith("vars/0") else None)
        change(file[found[0]].parent, folder)
    return {**members, "model.weights.h5": buffer.getvalue()}


def _put(make: Callable[[Any, Path], Any]) -> Callable[[Any, Path], None]:
    def change(group: Any, folder: Path) -> None:
        del group["0"]
        make(group, folder)

    return change


def _external(group: Any, folder: Path) -> None:
    (folder / "raw").write_bytes(bytes(432))
    group.create_dataset("0", (3, 3, 3, 4), "<f4", external=[(str(folder / "raw"), 0, 432)])


def _linked(group: Any, folder: Path) -> None:
    with h5py.File(folder / "other.h5", "w") as file:
        file["x"] = np.zeros((3, 3, 3, 4), np.float32)
    group["0"] = h5py.ExternalLink(str(folder / "other.h5"), "x")


WEIGHTS: dict[str, Callable[[Any, Path], None]] = {
    "another shape": _put(lambda g, _: g.create_dataset("0", data=np.zeros((3, 3, 3, 5), np.float32))),
    "missing": _put(lambda g, _: None),
    "four tebibytes": _put(lambda g, _: g.create_dataset("0", (1 << 38, 4), "<f4", chunks=(1 << 16, 4))),
    "in another file": _put(_external),
    "linked to another file": _put(_linked),
    "text": _put(lambda g, _: g.create_dataset("0", data=np.full((3, 3, 3, 4), b"x"))),
}

CODE: dict[str, dict[str, Any]] = {
    "lambda": {
        "module": "keras.layers",
        "class_name": "Lambda",
        "config": {
            "function": {
                "class_name": "__lambda__",
                "config": {"code": "4wAAAA==", "defaults": None, "closure": None},
            }
        },
    },
    "function by name": {
        "module": "keras.layers",
        "class_name": "Lambda",
        "config": {
            "function": {
                "module": "os",
                "class_name": "function",
                "config": "system",
                "registered_name": "system",
            }
        },
    },
    "class of another module": {
        "module": "subprocess",
        "class_name": "Popen",
        "config": {"args": ["touch", "MARKER"]},
        "as": "Popen",
    },
    "class of this suite": {
        "module": "tests.faults.test_heads",
        "class_name": "Bomb",
        "config": {"marker": "MARKER"},
        "as": "Bomb",
    },
    "saved model": {
        "module": "keras.layers",
        "class_name": "TFSMLayer",
        "config": {"filepath": "MARKER", "call_endpoint": "serve"},
    },
    "vocabulary file": {
        "module": "keras.layers",
        "class_name": "StringLookup",
        "config": {"vocabulary": "MARKER"},
    },
    "an activation that is code": {
        "module": "keras.layers",
        "class_name": "Activation",
        "config": {
            "activation": {
                "module": "builtins",
                "class_name": "function",
                "config": "eval",
                "registered_name": "eval",
            }
        },
    },
}


def check_refused(path: Path, source: Path, cache: Cache) -> None:
    """As a base and as a merged model."""
    from bottleneck.bases.load import load_base
    from bottleneck.schema import BaseRequest, Preprocessing

    with pytest.raises(BaseError, match=r"cannot be (loaded|read)"):
        load_base(BaseRequest(base=str(path), preprocessing=Preprocessing()), cache)
    from tests.fakes import base

    spec = base().spec.model_dump(mode="json")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("bottleneck.json", json.dumps({"format": 1, "classes": ["a", "b"], "spec": spec}))
    with pytest.raises(BaseError, match=r"cannot be (loaded|read)|is no merged model"):
        bottleneck.predict(path, source, cache=cache.root)


@pytest.mark.keras
@pytest.mark.fault(49)
@pytest.mark.parametrize("name", CODE)
def test_code_in_a_keras_file_never_runs(
    tmp_path: Path, cache: Cache, sound: dict[str, bytes], name: str
) -> None:
    layer = json.loads(json.dumps(CODE[name]).replace("MARKER", str(tmp_path / "marker")))
    if name == "vocabulary file":
        os.mkfifo(tmp_path / "marker")  # whoever opens it waits for ever
    path = packed(tmp_path / "evil.keras", with_layer(sound, layer))
    check_refused(path, write_images(tmp_path / "in", {"x": 1}), cache)
    assert (tmp_path / "marker").exists() == (name == "vocabulary file")


@pytest.mark.keras
@pytest.mark.fault(49)
@pytest.mark.filterwarnings("ignore:Skipping nested container:UserWarning")
@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_do_not_fit_the_network(
    tmp_path: Path, cache: Cache, sound: dict[str, bytes], name: str
) -> None:
    path = packed(tmp_path / "evil.keras", weights(sound, WEIGHTS[name], tmp_path))
    check_refused(path, write_images(tmp_path / "in", {"x": 1}), cache)


MEMBERS = ("config.json", "metadata.json", "model.weights.h5", "assets/more")


@pytest.mark.keras
@pytest.mark.fault(49)
@pytest.mark.parametrize("member", MEMBERS if regime() == "full" else MEMBERS[:1])
def test_a_keras_file_that_unpacks_to_a_gigabyte(
    tmp_path: Path, sound: dict[str, bytes], member: str, full: bool
) -> None:
    path = tmp_path / "bomb.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sound.items():
            if name != member:
                archive.writestr(name, data)
        with archive.open(member, "w", force_zip64=True) as file:
            file.write(sound.get(member, b""))
            for _ in range(1024 if full else 200):
                file.write(b" " * (1 << 20))
    script = (
        "import resource, sys\nfrom pathlib import Path\nimport keras\n"
        "from bottleneck.bases.custom import load_archive\nfrom bottleneck.errors import BaseError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: load_archive(Path(sys.argv[1]))\nexcept BaseError as error: print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = python(script, path)
    assert done.returncode == 0, done.stderr[-1000:]
    refusal, kilobytes = done.stdout.splitlines()[-2:]
    assert "cannot be read" in refusal and "declare" in refusal
    assert int(kilobytes) < 100 * 1024


@pytest.mark.keras
@pytest.mark.fault(49)
def test_a_sound_file_that_somebody_packed_again_is_read(tmp_path: Path, sound: dict[str, bytes]) -> None:
    from bottleneck.bases.custom import load_archive

    assert load_archive(packed(tmp_path / "net.keras", sound, zipfile.ZIP_DEFLATED)).output_shape == (None, 4)


# ------------------------------------------------------------------------------------- 52: another base, same name


@pytest.mark.keras
@pytest.mark.fault(52)
def test_one_changed_weight_is_another_store(tmp_path: Path, cache: Cache, sound: dict[str, bytes]) -> None:
    from bottleneck.bases.custom import load_archive

    source = write_images(tmp_path / "in", {"x": 5}, size=(16, 16))
    path = tmp_path / "net.keras"

    def extract(members: Mapping[str, bytes]) -> tuple[int, int]:
        model = load_archive(packed(path, members))
        done = bottleneck.extract(source, model, preprocessing="scale=1/255", cache=cache.root)
        return done.computed, done.reused

    def nudge(group: Any, _: Path) -> None:
        kernel = group["0"][:]
        kernel[0, 0, 0, 0] = np.nextafter(kernel[0, 0, 0, 0], np.float32(np.inf))
        group["0"][...] = kernel

    assert extract(sound) == (5, 0)
    before = {name: what for name, what in snapshot(cache.stores).items() if "/shards/" in name}
    assert len(before) == 3
    assert extract(weights(sound, nudge, tmp_path)) == (5, 0)
    assert extract(sound) == (0, 5)
    assert len(list(cache.stores.iterdir())) == 2
    assert before.items() <= snapshot(cache.stores).items()
