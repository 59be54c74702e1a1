from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bottleneck.bases import specs
from bottleneck.errors import BaseError
from bottleneck.schema import BaseRequest, Cache

CONVOLUTIONS = [
    f"conv{block}_{number}"
    for block, count in enumerate((2, 2, 3, 3, 3), start=1)
    for number in range(1, count + 1)
]


def legacy_file(path: Path, model: Any, *, top: bool) -> dict[str, list[np.ndarray]]:
    """A file as Keras 2 wrote the public ones: layer names with slashes, those without weights among them."""
    import h5py

    rng = np.random.default_rng(0)
    written: dict[str, list[np.ndarray]] = {}
    with h5py.File(path, "w") as file:
        names = ["input_1", *CONVOLUTIONS, "pool5", *(["fc6", "fc6/relu"] if top else [])]
        file.attrs["layer_names"] = [name.encode() for name in names]
        for name in names:
            group = file.create_group(name)
            group.attrs["weight_names"] = []
            if name in CONVOLUTIONS:
                shapes = [w.shape for w in model.get_layer(name).weights]
            elif name == "fc6":
                shapes = [(4, 4), (4,)]  # whatever comes after the network is its classifier
            else:
                continue
            written[name] = [rng.normal(0, 0.02, shape).astype(np.float32) for shape in shapes]
            group.attrs["weight_names"] = [f"{name}_W:0".encode(), f"{name}_b:0".encode()]
            for key, values in zip(("W", "b"), written[name], strict=True):
                group[f"{name}_{key}:0"] = values
    return written


@pytest.mark.keras
def test_the_network_has_the_names_and_parameters_of_its_files() -> None:
    from bottleneck.bases.layer_names import blocks_of
    from bottleneck.bases.vggface import build

    spec = specs()["vggface_vgg16"]
    model = build(spec, top=False, size=64)
    assert [layer.name for layer in model.layers if layer.weights] == CONVOLUTIONS
    assert model.count_params() == spec.parameters
    assert [name for name, _ in blocks_of(model, spec.blocks)] == [f"conv{n}" for n in range(1, 6)]
    with pytest.raises(BaseError, match="224 with its top"):
        build(spec, top=True, size=64)


@pytest.mark.keras
@pytest.mark.parametrize("top", [False, True])
def test_a_public_weight_file_loads_with_and_without_its_classifier(tmp_path: Path, top: bool) -> None:
    from bottleneck.bases.load import load_base
    from bottleneck.bases.vggface import build

    spec = specs()["vggface_vgg16"]
    path = tmp_path / "rcmalli_vggface_tf_vgg16.h5"
    written = legacy_file(path, build(spec, top=False, size=32), top=top)
    request = BaseRequest(base=spec.name, size=32, weights=str(path))
    base = load_base(request, Cache(tmp_path / "cache"))
    for name, values in written.items():
        if name in CONVOLUTIONS:
            for found, value in zip(base.model.get_layer(name).get_weights(), values, strict=True):
                np.testing.assert_array_equal(found, value)
    assert base.preprocessing.offset == (-93.5940, -104.7624, -129.1863)


@pytest.mark.keras
def test_without_a_file_it_says_which_one_is_meant(tmp_path: Path) -> None:
    from bottleneck.bases.load import load_base

    with pytest.raises(BaseError, match=r"rcmalli_vggface_tf_notop_vgg16\.h5"):
        load_base(BaseRequest(base="vggface_vgg16", size=32), Cache(tmp_path))
