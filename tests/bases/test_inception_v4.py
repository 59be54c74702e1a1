from __future__ import annotations

import pytest

from bottleneck.bases import specs


@pytest.mark.keras
def test_it_is_the_network_of_the_paper() -> None:
    from bottleneck.bases.inception_v4 import build
    from bottleneck.bases.layer_names import blocks_of

    spec = specs()["inception_v4"]
    model = build(spec, top=False, size=spec.size)
    assert model.count_params() == spec.parameters
    filters = sum(layer.filters for layer in model.layers if type(layer).__name__ == "Conv2D")
    # timm's count of the same network: weights and two numbers a BatchNormalization, and a classifier of 1,000.
    assert model.count_params() - 3 * filters + 2 * filters + 1536 * 1000 + 1000 == 42_679_816
    shapes = {name: model.get_layer(f"mixed_{name}").output.shape[1:] for name in ("stem", "a4", "b7", "c3")}
    # Figure 9 of the paper.
    assert shapes == {"stem": (35, 35, 384), "a4": (35, 35, 384), "b7": (17, 17, 1024), "c3": (8, 8, 1536)}
    names = [name for name, _ in blocks_of(model, spec.blocks)]
    assert names[0] == "stem"
    assert names[-2:] == ["c2", "c3"]
    assert len(names) == 1 + 4 + 7 + 3 + 2
    top = build(spec, top=True, size=75)
    assert top.output_shape == (None, 1001)
    assert [type(layer).__name__ for layer in top.layers[-3:]] == [
        "GlobalAveragePooling2D",
        "Dropout",
        "Dense",
    ]
