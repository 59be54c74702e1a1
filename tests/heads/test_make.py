"""Settings from text, names that do not exist, and what is said before training."""

from __future__ import annotations

import subprocess
import sys
import typing

import numpy as np
import pytest

from bottleneck import catalog
from bottleneck.errors import UnknownName, UsageError
from bottleneck.heads.make import TOO_MANY, capacity_advice, count_parameters, make
from bottleneck.heads.settings import describe, known, parse_settings
from bottleneck.schema import HeadSpec


def test_text_is_read_by_the_annotation():
    head = make(
        HeadSpec(
            name="dense",
            settings={
                "hidden": "4096,512",
                "dropout": "0.5",
                "batch_norm": "true",
                "patience": "none",
                "epochs": "7",
            },
        )
    )
    assert (head.hidden, head.dropout, head.batch_norm, head.patience, head.epochs) == (
        (4096, 512),
        0.5,
        True,
        None,
        7,
    )
    assert type(head.epochs) is int


def test_values_from_python_pass_as_they_are():
    head = make(HeadSpec(name="dense", settings={"hidden": [64], "class_weight": {"a": 2.0}}))
    assert head.hidden == (64,)
    assert head.class_weight == {"a": 2.0}


def test_one_hidden_layer_needs_no_comma_and_none_at_all_is_empty():
    assert make(HeadSpec(name="dense", settings={"hidden": "50"})).hidden == (50,)
    assert make(HeadSpec(name="dense", settings={"hidden": ""})).hidden == ()


def test_numpy_scalars_of_a_grid_are_numbers():
    kind = catalog.load("head", catalog.HEADS, "dense")
    parsed = parse_settings(
        "dense", kind, {"epochs": np.int64(3), "hidden": (np.int32(4),), "dropout": np.float32(0.5)}
    )
    assert parsed == {"epochs": 3, "hidden": (4,), "dropout": 0.5}


def test_unknown_head_and_setting_list_the_nearest():
    with pytest.raises(UnknownName, match=r"nearest: logistic") as unknown:
        make(HeadSpec(name="logistc"))
    assert unknown.value.exit_status == 2
    with pytest.raises(UnknownName, match=r"nearest: dropout.*known: .*batch_norm"):
        make(HeadSpec(name="dense", settings={"dropuot": 0.5}))


@pytest.mark.parametrize(
    ("name", "key", "value", "told"),
    [
        ("dense", "hidden", "many", "whole numbers separated by commas"),
        ("dense", "hidden", "0", "greater than or equal to 1"),
        ("dense", "dropout", "1.0", "less than 1"),
        ("dense", "batch_norm", "perhaps", "true or false"),
        ("dense", "optimizer", "lion", "adam | adamw | sgd | rmsprop"),
        ("dense", "epochs", "2.5", "a whole number"),
        ("logistic", "C", "-1", "greater than 0"),
        ("logistic", "C", "nan", "number"),
        ("logistic", "max_iter", "none", "a whole number"),
    ],
)
def test_a_value_that_does_not_fit_says_what_would(name, key, value, told):
    with pytest.raises(UsageError) as refused:
        make(HeadSpec(name=name, settings={key: value}))
    assert key in str(refused.value)
    assert repr(value) in str(refused.value)
    assert told in str(refused.value)


def test_defaults_fit_their_own_annotations():
    for name in catalog.HEADS:
        kind = catalog.load("head", catalog.HEADS, name)
        given = kind().get_params()
        assert parse_settings(name, kind, given) == given
        assert set(known(kind)) == set(given)
        assert all(describe(hint) for hint in known(kind).values())


def test_describe_names_bounds():
    hint = typing.get_type_hints(make(HeadSpec(name="dense")).__init__, include_extras=True)["dropout"]
    assert describe(hint) == "a number (>= 0 and < 1)"


def test_s1_counts_exactly():
    spec = HeadSpec(name="dense", settings={"hidden": (4096,), "batch_norm": True})
    layout = make(spec).layout((4096,), 19)
    sizes = {name: int(np.prod(shape)) for name, shape in layout.items()}
    assert sizes["head_dense_1.kernel"] + sizes["head_dense_1.bias"] == 16_781_312
    assert sum(size for name, size in sizes.items() if name.startswith("head_norm_1")) == 16_384
    assert sizes["logits.kernel"] + sizes["logits.bias"] == 77_843
    assert count_parameters(spec, (4096,), 19) == (16_875_539, 16_867_347)


def test_counts_of_small_heads():
    assert count_parameters(HeadSpec(name="logistic"), (7, 7, 512), 19) == (25088 * 19 + 19,) * 2
    assert (
        count_parameters(HeadSpec(name="dense", settings={"hidden": "50"}), (7, 7, 512), 19)
        == (1_255_419,) * 2
    )


def test_advice_speaks_for_s1_and_not_for_the_head_it_advises():
    said = capacity_advice(16_867_347, 1_120)
    assert said is not None
    assert "16,867,347" in said
    assert "1,120" in said
    assert "15,060" in said
    assert "--pooling avg" in said
    assert "hidden=50" in said
    assert capacity_advice(1_255_419, 1_120) is None
    assert capacity_advice(TOO_MANY * 10, 10) is None
    assert capacity_advice(TOO_MANY * 10 + 1, 10) is not None
    with pytest.raises(UsageError, match="training images"):
        capacity_advice(1, 0)


def test_heads_import_and_count_without_tensorflow():
    code = (
        "import sys\n"
        "from bottleneck.heads.make import make, count_parameters\n"
        "from bottleneck.schema import HeadSpec\n"
        "count_parameters(HeadSpec(name='dense'), (8,), 2)\n"
        "make(HeadSpec(name='logistic')).fit([[0.0], [1.0]], ['a', 'b']).predict_proba([[0.5]])\n"
        "sys.exit(', '.join({'tensorflow', 'keras'} & set(sys.modules)) or 0)\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
