"""Every base of the catalog keeps its promises: the table without TensorFlow, the build of one small one a family."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from bottleneck.bases import families, family_of, specs
from bottleneck.catalog import BASES
from bottleneck.schema import PREPROCESSINGS, BaseRequest, BaseSpec, Cache

#: The cheapest member of each family of the catalog.
SMALL = {
    "applications": "mobilenet",
    "squeezenet": "squeezenet",
    "vggface": "vggface_vgg16",
    "inception_v4": "inception_v4",
}


@pytest.mark.parametrize("spec", specs().values(), ids=specs())
def test_a_spec_is_sane(spec: BaseSpec) -> None:
    assert re.fullmatch(r"[a-z0-9_]+", spec.name)
    assert re.fullmatch(r"[\w.]+:\w+", spec.builder)
    assert spec.preprocessing in PREPROCESSINGS
    assert spec.cut in spec.cuts
    assert not spec.cuts[spec.cut].top, "the default cut works at any size"
    assert "penultimate" in spec.cuts
    assert re.compile(spec.blocks).groups == 1
    assert 0 < spec.smallest <= spec.size
    assert spec.parameters > 0
    assert all(extent > 0 for extent in spec.feature)
    assert "random:SEED" in spec.weights


def test_names_are_told_apart_and_families_are_known() -> None:
    names = [name for family in families().values() for name in family.specs()]
    assert len(names) == len(set(names))
    assert set(BASES) == set(SMALL)
    assert all(name == spec.name for name, spec in specs().items())


@pytest.mark.keras
@pytest.mark.parametrize("family", sorted(BASES))
def test_a_base_builds_runs_and_keeps_its_digest(family: str, tmp_path: Path) -> None:
    from bottleneck.bases import preprocess
    from bottleneck.bases.inference_only import freeze_base
    from bottleneck.bases.load import load_base
    from bottleneck.pixels.probes import probes

    spec = specs()[SMALL[family]]
    assert family_of(spec.name) is families()[family]
    request = BaseRequest(base=spec.name, weights="random:0", size=spec.smallest)
    base = load_base(request, Cache(tmp_path))
    before = base.digest_now()
    pixels = probes(4, spec.smallest, spec.smallest)
    rows = np.asarray(base.features_model(pixels))
    assert rows.shape == (4, *base.spec.shape)
    assert (rows.ndim - 1, rows.shape[-1]) == (len(spec.feature), spec.feature[-1])
    assert np.isfinite(rows).all()
    image = preprocess.apply(pixels, base.preprocessing)
    frozen = freeze_base(base.model)
    assert not frozen.trainable_weights
    expected = np.asarray(base.model(image, training=False))
    np.testing.assert_array_equal(np.asarray(frozen(image, training=True)), expected)
    assert base.digest_now() == before
    assert base.spec == load_base(request, Cache(tmp_path)).spec
