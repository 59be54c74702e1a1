from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bottleneck.bases.weights import parse_weights
from bottleneck.errors import BaseError, UsageError
from tests.bases import networks


def test_parsing(tmp_path: Path) -> None:
    assert parse_weights("imagenet").kind == "imagenet"
    (tmp_path / "x.weights.h5").touch()
    assert parse_weights(str(tmp_path / "x.weights.h5")).path == tmp_path / "x.weights.h5"
    for text, match in (
        ("random:x", "whole number"),
        ("imagnet", "expected imagenet"),
        ("gone.h5", "no such file"),
    ):
        with pytest.raises(UsageError, match=match):
            parse_weights(text)


def headed(classes: int | None = 5, width: int = 4) -> Any:
    """A network with or without its classifier."""
    import keras
    from keras import layers

    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(width, 3, name="c1")(image)
    x = layers.BatchNormalization(name="n1")(x)
    x = layers.Conv2D(6, 3, name="c2")(x)
    if classes:
        x = layers.Dense(classes, name="top")(layers.GlobalAveragePooling2D(name="gap")(x))
    return networks.fill(keras.Model(image, x), 7)


def save(model: Any, path: Path) -> Path:
    """`path` says the format: .weights.h5, .keras, .legacy.h5 (weights as Keras 2 wrote them), .whole.h5."""
    if path.name.endswith(".legacy.h5"):
        import h5py
        from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

        with h5py.File(path, "w") as file:
            save_weights_to_hdf5_group(file, model)
            del file["top_level_model_weights"]  # as Keras 2 files are
    elif path.name.endswith(".whole.h5"):
        from keras.src.legacy.saving.legacy_h5_format import save_model_to_hdf5

        save_model_to_hdf5(model, str(path), include_optimizer=False)
    elif path.suffix == ".keras":
        model.save(path)
    else:
        model.save_weights(path)
    return path


KINDS = ("x.weights.h5", "x.keras", "x.legacy.h5", "x.whole.h5")


@pytest.mark.keras
@pytest.mark.parametrize("kind", KINDS)
def test_every_format_fills_every_weight(kind: str, tmp_path: Path) -> None:
    from bottleneck.bases.weights import load_file

    source = headed()
    path = save(source, tmp_path / kind)
    for model in (headed(), headed(None)):
        for weight in model.weights:
            weight.assign(np.full(weight.shape, 9, np.float32))
        load_file(model, path, top_may_lack=True)
        for weight, expected in zip(model.weights, source.weights, strict=False):
            np.testing.assert_array_equal(np.asarray(weight), np.asarray(expected))


@pytest.mark.fault(49)
@pytest.mark.keras
@pytest.mark.parametrize("kind", KINDS)
def test_what_does_not_fit_names_the_layer(kind: str, tmp_path: Path) -> None:
    from bottleneck.bases.weights import load_file

    path = save(headed(width=3), tmp_path / kind)
    with pytest.raises(BaseError, match=r"c1.*\(3, 3, 3, 4\).*\(3, 3, 3, 3\)"):
        load_file(headed(), path, top_may_lack=True)
    with pytest.raises(BaseError, match="top"):
        load_file(headed(), save(headed(None), tmp_path / f"y{kind}"), top_may_lack=True)
    with pytest.raises(BaseError, match="holds"):
        load_file(headed(None, width=3), path, top_may_lack=False)


@pytest.mark.fault(49)
@pytest.mark.keras
def test_nan_links_and_rubbish_are_refused(tmp_path: Path) -> None:
    import h5py

    from bottleneck.bases.weights import load_file

    bad = headed()
    bad.get_layer("c2").kernel.assign(np.full((3, 3, 4, 6), np.nan, np.float32))
    with pytest.raises(BaseError, match=r"NaN alone.*c2/kernel"):
        load_file(headed(), save(bad, tmp_path / "nan.weights.h5"), top_may_lack=False)
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["v"] = np.zeros((3, 3, 3, 4), np.float32)
    for kind in ("e.legacy.h5", "e.weights.h5"):
        path = save(headed(), tmp_path / kind)
        with h5py.File(path, "a") as file:
            names: list[str] = []
            file.visit(names.append)
            where = next(
                n for n in names if isinstance(file[n], h5py.Dataset) and file[n].shape == (3, 3, 3, 4)
            )
            del file[where]
            file[where] = h5py.ExternalLink(secret, "v")
        with pytest.raises(BaseError, match="link"):
            load_file(headed(), path, top_may_lack=False)
    rubbish = tmp_path / "rubbish.h5"
    rubbish.write_bytes(b"not HDF5")
    with pytest.raises(BaseError, match="cannot be read"):
        load_file(headed(), rubbish, top_may_lack=False)
    renamed = (tmp_path / "x.weights.h5").rename
    save(headed(), tmp_path / "x.weights.h5")
    with pytest.raises(BaseError, match="rename"):
        load_file(headed(), renamed(tmp_path / "x.h5"), top_may_lack=False)


@pytest.mark.keras
def test_imagenet_goes_through_keras_own_door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the download is replaced: with a top for one base, without for another."""
    import keras
    from keras.src.utils import file_utils

    from bottleneck.bases.load import load_base
    from bottleneck.schema import BaseRequest, Cache

    asked: list[str] = []
    with_top = keras.applications.MobileNetV2(weights=None)
    without = keras.applications.DenseNet121(weights=None, include_top=False)
    files = {
        "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224.h5": save(
            with_top, tmp_path / "a.legacy.h5"
        ),
        "densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5": save(without, tmp_path / "b.legacy.h5"),
    }

    def get_file(fname: str, origin: str, **options: Any) -> str:
        asked.append(fname)
        if fname not in files:
            raise Exception(f"URL fetch failure on {origin}: None -- [Errno -2] Name or service not known")
        return str(files[fname])

    monkeypatch.setattr(file_utils, "get_file", get_file)
    cache = Cache(tmp_path)
    top = load_base(BaseRequest(base="mobilenetv2", cut="predictions"), cache)
    for weight, expected in zip(top.model.weights, with_top.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(weight), np.asarray(expected))
    bare = load_base(BaseRequest(base="densenet121", weights="imagenet", size=32), cache)
    assert bare.spec.shape == (1024,)
    np.testing.assert_array_equal(np.asarray(bare.model.weights[-4]), np.asarray(without.weights[-4]))
    assert asked == list(files)
    with pytest.raises(BaseError, match=r"vgg16 could not be fetched.*--weights PATH"):
        load_base(BaseRequest(base="vgg16", size=32), cache)


@pytest.mark.keras
def test_random_weights_are_the_seeds_and_nobody_elses(tmp_path: Path) -> None:
    import random

    from bottleneck.bases.load import load_base
    from bottleneck.schema import BaseRequest, Cache

    random.seed(5)
    np.random.seed(5)  # noqa: NPY002 - the state that must survive
    expected = (random.random(), np.random.random())  # noqa: NPY002
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    bases = [
        load_base(BaseRequest(base="mobilenet", weights=f"random:{s}", size=32), Cache(tmp_path))
        for s in (0, 0, 1)
    ]
    assert (random.random(), np.random.random()) == expected  # noqa: NPY002
    digests = [base.spec.recipe.base_digest for base in bases]
    assert digests[0] == digests[1] != digests[2]
    for a, b in zip(bases[0].model.weights, bases[1].model.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.keras
@pytest.mark.parametrize("name", ["mobilenetv2", "vgg16"])
def test_calibrated_features_have_unit_scale_and_show_a_channel_swap(name: str, tmp_path: Path) -> None:
    from bottleneck.bases.load import load_base
    from bottleneck.pixels.probes import probes
    from bottleneck.schema import BaseRequest, Cache

    base = load_base(BaseRequest(base=name, weights="random:0", size=32, pooling="avg"), Cache(tmp_path))
    pixels = probes(16, 32, 32)
    rows = np.asarray(base.features_model(pixels))
    swapped = np.asarray(base.features_model(pixels[..., ::-1]))
    spread = rows.std(0).mean()
    assert 0.05 < spread < 5
    assert np.abs(rows - swapped).mean() > 0.2 * spread
