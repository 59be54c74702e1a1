"""Saved heads, and changes to their files."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile

import numpy as np
import pytest

from bottleneck.errors import HeadError
from bottleneck.heads import persistence
from bottleneck.heads.make import make
from bottleneck.schema import HeadSpec
from tests.heads.toy_rows import clusters

RECIPE = "a" * 64


SHAPE = (12,)


def save(folder, *, seed=0, classes=3, shape=SHAPE, recipe=RECIPE, settings=None):
    X, y = clusters(60, shape, classes, seed=seed)
    spec = HeadSpec(name="logistic", settings=settings or {})
    head = make(spec).fit(X, y)
    persistence.save_head(
        head, spec, folder, recipe=recipe, feature_shape=shape, classes=head.classes_.tolist()
    )
    return folder


def edit(folder, change):
    """Apply `change` to the parsed document; it may return another value to write."""
    path = folder / "head.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps(change(document) or document))


def put_arrays(folder, data: bytes):
    """Other bytes for the arrays, with a document that vouches for them."""
    (folder / "head.npz").write_bytes(data)
    edit(folder, lambda d: d.update(npz_sha256=hashlib.sha256(data).hexdigest(), npz_bytes=len(data)))


def arrays_of(folder):
    with np.load(folder / "head.npz", allow_pickle=False) as found:
        return dict(found)


def refused(folder, words, **wanted):
    with pytest.raises(HeadError) as error:
        persistence.load_head(folder, **wanted)
    assert words in str(error.value), str(error.value)
    return str(error.value)


def packed(arrays, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=True)
            file.writestr(f"{name}.npy", member.getvalue())
    return buffer.getvalue()
