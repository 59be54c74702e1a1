"""Saved heads: what is refused, and that nothing in them runs. Faults 48 and 50."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from bottleneck.errors import HeadError
from bottleneck.heads import persistence
from bottleneck.heads.logistic import LogisticHead
from bottleneck.heads.make import make
from bottleneck.schema import HeadSpec
from tests.heads.saved_heads import RECIPE, SHAPE, arrays_of, edit, packed, put_arrays, refused, save
from tests.heads.toy_rows import clusters


@pytest.fixture
def saved(tmp_path):
    return save(tmp_path)


def test_bytes_depend_on_the_head_alone(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        save(tmp_path / name)
    for file in ("head.json", "head.npz"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    assert sorted(os.listdir(tmp_path / "one")) == ["head.json", "head.npz"]


def test_numpy_alone_reads_the_arrays(saved):
    head, _ = persistence.load_head(saved)
    found = arrays_of(saved)
    assert (found["kernel"] == head.arrays_["kernel"]).all()
    assert found["bias"].dtype == np.float32


def test_saving_again_replaces(saved):
    before = persistence.load_head(saved)[0]
    save(saved, seed=4)
    assert (persistence.load_head(saved)[0].coef_ != before.coef_).any()


def test_labels_keep_their_kind(tmp_path):
    X, y = clusters(30, SHAPE, 3)
    for labels, folder in ((np.searchsorted(np.unique(y), y), "ints"), (y == "class a", "bools")):
        (tmp_path / folder).mkdir()
        weight = {labels[0].item(): 2.0}
        head = LogisticHead(class_weight=weight).fit(X, labels)
        spec = HeadSpec(name="logistic", settings={"class_weight": weight})
        persistence.save_head(
            head, spec, tmp_path / folder, recipe=RECIPE, feature_shape=SHAPE, classes=head.classes_.tolist()
        )
        loaded, _ = persistence.load_head(tmp_path / folder)
        assert loaded.classes_.dtype == head.classes_.dtype
        assert loaded.class_weight == weight
        assert loaded.fit(X, labels).score(X, labels) > 0.5


def test_what_does_not_belong_together_is_not_written(tmp_path):
    X, y = clusters(30, SHAPE, 3)
    head, spec = LogisticHead().fit(X, y), HeadSpec(name="logistic")
    right = {"recipe": RECIPE, "feature_shape": SHAPE, "classes": head.classes_.tolist()}
    for wrong in ({"feature_shape": (3, 4)}, {"classes": ["class a", "class b"]}):
        with pytest.raises(HeadError, match="expected"):
            persistence.save_head(head, spec, tmp_path, **right | wrong)
    with pytest.raises(HeadError, match="expected a head 'dense'"):
        persistence.save_head(head, HeadSpec(name="dense"), tmp_path, **right)
    head.arrays_["bias"][0] = np.nan
    with pytest.raises(HeadError, match="NaN"):
        persistence.save_head(head, spec, tmp_path, **right)
    assert not os.listdir(tmp_path)


@pytest.mark.fault(50)
def test_another_recipe_is_refused_with_both_fingerprints(saved):
    said = refused(saved, "b" * 64, recipe="b" * 64)
    assert RECIPE in said
    assert "train a head" in said


@pytest.mark.fault(50)
def test_another_shape_or_class_list_is_refused(saved):
    assert "(12,)" in refused(saved, "(3, 4)", feature_shape=(3, 4))
    assert "'class a'" in refused(saved, "['cat', 'dog']", classes=["cat", "dog"])
    refused(saved, "classes", classes=["class c", "class b", "class a"])


@pytest.mark.fault(50)
@pytest.mark.parametrize("file", ["head.json", "head.npz"])
def test_swapped_files_of_two_heads_are_refused(tmp_path, file):
    for name, seed in (("one", 0), ("two", 1)):
        (tmp_path / name).mkdir()
        save(tmp_path / name, seed=seed)
    (tmp_path / "one" / file).write_bytes((tmp_path / "two" / file).read_bytes())
    refused(tmp_path / "one", "sha256")


@pytest.mark.fault(50)
def test_a_document_that_vouches_for_another_heads_weights_fails_the_probe(tmp_path):
    for name, seed in (("one", 0), ("two", 1)):
        (tmp_path / name).mkdir()
        save(tmp_path / name, seed=seed)
    put_arrays(tmp_path / "one", (tmp_path / "two" / "head.npz").read_bytes())
    refused(tmp_path / "one", "probe")


def test_reordered_classes_fail_though_the_weights_fit(saved):
    def swap(document):
        document["state"]["classes"] = ["class b", "class a", "class c"]

    edit(saved, swap)
    refused(saved, "sorted order")


class Bomb:
    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


@pytest.mark.fault(48)
def test_a_pickle_in_the_arrays_never_runs(saved, tmp_path):
    marker = tmp_path / "ran"
    objects = np.array([Bomb(marker)], dtype=object)
    real = arrays_of(saved)
    for arrays in (real | {"bias": objects}, {"kernel": objects, "bias": objects}):
        data = packed(arrays)
        assert b"mkdir" in data
        put_arrays(saved, data)
        refused(saved, "object")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name in ("kernel", "bias"):
            file.writestr(f"{name}.npy", pickle.dumps(Bomb(marker)))
    put_arrays(saved, buffer.getvalue())
    refused(saved, "train the head again")
    put_arrays(saved, pickle.dumps(Bomb(marker)))
    refused(saved, "train the head again")
    assert not marker.exists()


@pytest.mark.fault(48)
def test_a_head_outside_the_catalog_is_not_looked_for(saved):
    edit(saved, lambda d: d["spec"].update(name="os:system"))
    refused(saved, "no head called 'os:system'")


def test_compressed_members_are_refused_before_they_grow(saved):
    real = arrays_of(saved)
    put_arrays(saved, packed(real, zipfile.ZIP_DEFLATED))
    refused(saved, "compressed")


def test_a_pipe_or_a_folder_in_place_of_a_file_is_no_head(saved):
    (saved / "head.json").unlink()
    refused(saved, "cannot be read")
    (saved / "head.json").mkdir()
    refused(saved, "cannot be read")
    (saved / "head.json").rmdir()
    os.mkfifo(saved / "head.json")
    with pytest.raises(HeadError):
        persistence.load_head(saved)


def test_stopped_halfway_leaves_no_half_head(saved, monkeypatch):
    """Stopped between arrays and document, the old document refuses the new arrays."""
    calls = []

    def stop(path, data, *, replace):
        calls.append(path.name)
        if path.name == "head.json":
            raise OSError(28, "No space left on device")
        path.write_bytes(data)
        return True

    monkeypatch.setattr(persistence, "publish", stop)
    with pytest.raises(OSError, match="No space"):
        save(saved, seed=9)
    assert calls == ["head.npz", "head.json"]
    monkeypatch.undo()
    refused(saved, "sha256")


@pytest.mark.keras
def test_negative_variance_is_refused(tmp_path):
    X, y = clusters(30, SHAPE, 3)
    spec = HeadSpec(
        name="dense", settings={"hidden": (4,), "batch_norm": True, "epochs": 1, "patience": None}
    )
    head = make(spec).fit(X, y)
    persistence.save_head(
        head, spec, tmp_path, recipe=RECIPE, feature_shape=SHAPE, classes=head.classes_.tolist()
    )
    arrays = arrays_of(tmp_path)
    arrays["head_norm_1.moving_variance"][0] = -1.0
    put_arrays(tmp_path, packed(arrays))
    refused(tmp_path, "negative variances")


@pytest.mark.keras
def test_a_saved_dense_head_predicts_without_tensorflow(tmp_path):
    X, y = clusters(30, SHAPE, 3)
    spec = HeadSpec(name="dense", settings={"hidden": (4,), "epochs": 1, "patience": None})
    head = make(spec).fit(X, y)
    persistence.save_head(
        head, spec, tmp_path, recipe=RECIPE, feature_shape=SHAPE, classes=head.classes_.tolist()
    )
    code = (
        "import sys, pathlib, numpy as np\n"
        "from bottleneck.heads.persistence import load_head\n"
        "load_head(pathlib.Path(sys.argv[1]))[0].predict_proba(np.zeros((2, 12), 'f4'))\n"
        "sys.exit(', '.join({'tensorflow', 'keras'} & set(sys.modules)) or 0)\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(tmp_path)], check=True)
