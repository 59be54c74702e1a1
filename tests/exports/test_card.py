"""The model card: complete, readable, and nothing that a user wrote can act as Markdown."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottleneck import catalog
from bottleneck.contracts import Exporter
from bottleneck.evaluation.metrics import measure_probabilities
from bottleneck.exports.artefact import reader_text
from bottleneck.exports.card import Card, DataFacts, RejectedGroup, escaped, excerpt, render
from bottleneck.exports.manifest import Delivered, Refusal
from bottleneck.models.certificate import certify, judge_rows, judge_twin
from bottleneck.models.comparison import Outputs, bound_of, compare
from bottleneck.schema import NAMED_BY_SOURCE, HeadSpec, SplitPolicy
from bottleneck.schema.tuning import StageDone, Tuned, TuneSettings
from tests.fakes import FakeForward

DRAW = np.random.default_rng(0)
RIGHT = Outputs(DRAW.normal(size=(8, 4)), DRAW.normal(size=(8, 2)), DRAW.random((8, 2)))
BOUND = bound_of(0.0, 8)
OTHER = Outputs(RIGHT.features + 0.1, RIGHT.logits + 0.1, RIGHT.probabilities[:, ::-1])

EXPORTERS: list[Exporter] = [catalog.resolve(where)() for where in catalog.EXPORTERS.values()]
READERS = {e.kind: (e.reader.name, reader_text(e.reader)) for e in EXPORTERS}

NASTY = [
    "a|b",
    "[click](http://evil.example)",
    "<script>x</script>",
    "*bold* _it_ `code`",
    "# head\n## two",
    "{{ 7*7 }}",
]


def card(classes: list[str] | None = None, **changes: object) -> Card:
    classes = classes or ["cat", "dog"]
    truth = np.zeros(8, int)
    forms = [compare("merged model", name, RIGHT, RIGHT, truth=truth) for name in ("probes", "own images")]
    artefacts = []
    for exporter in EXPORTERS:
        gate = None if exporter.tolerance else 0.97
        forms.append(compare(exporter.kind, "own images", RIGHT, RIGHT, gate=gate, truth=truth))
        artefacts.append(
            Delivered(kind=exporter.kind, path=exporter.name, bytes=2_917_542, milliseconds=4.26)
        )
    chances = DRAW.dirichlet(np.ones(len(classes)), 40)
    metrics = {
        split: measure_probabilities(
            [classes[i % len(classes)] for i in range(40)], chances, tuple(classes)
        ).model_dump(mode="json")
        for split in ("train", "validation", "test")
    }
    values: dict[str, object] = {
        "name": "digits",
        "created": "2026-01-01T00:00:00+00:00",
        "exported": "2026-01-02T00:00:00+00:00",
        "data": DataFacts(
            fingerprint="ab" * 32,
            images=120,
            classes={name: {"train": 1437, "validation": 2} for name in classes},
            rejected=(RejectedGroup(stage="decode", reason="not an image", images=3, paths=("x/y.png",)),),
        ),
        "base": FakeForward().spec,
        "asked": {"base": "fake", "weights": None},
        "head": HeadSpec(name="dense", settings={"hidden": [64], "dropout": 0.5}),
        "parameters": {"base": 735_939, "head": 5_130},
        "metrics": metrics,
        "folds": (),
        "certificate": certify(
            forms,
            [judge_twin("channels reversed", RIGHT, OTHER, BOUND)],
            [judge_rows("own images", RIGHT, RIGHT)],
            recipe="0" * 64,
            head="dense",
            bound=BOUND,
        ),
        "compared": 155,
        "unseen": 34,
        "artefacts": tuple(artefacts),
        "refused": (
            Refusal(kind="litert-int8", why="names the head's first choice for 0.410 of 256 images"),
        ),
        "versions": {"keras": "3.15.1"},
        **changes,
    }
    return Card.model_validate(values)


def tables(text: str) -> list[list[str]]:
    """Cells of every row of every table, outside code."""
    text = re.sub(r"```.*?```", "", text, flags=re.S)
    return [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("|")]


def test_the_card_says_what_the_issue_asks_for() -> None:
    made = card()
    text = render(made, READERS)
    for wanted in (
        made.data.fingerprint,
        made.base.recipe.base_digest,
        made.base.recipe.fingerprint,
        "1,437",
        "not an image",
        "x/y.png",
        "2.9 MB",
        "4.3",
        "channels reversed",
        "certified",
        "litert-int8`**: names the head's first choice for 0.410",
        "serve_bytes",
        "b64",
        "onnxruntime-web",
        "TfLiteModelCreateFromFile",
        "3.15.1",
        "stored rows",
    ):
        assert wanted in text, wanted
    low, high = made.metrics["test"]["interval"]
    assert f"{low:.3f} … {high:.3f}" in text
    assert f"{100 * made.metrics['test']['accuracy']:.1f} %" in text.split("##")[0]
    assert Card.model_validate_json(made.model_dump_json()) == made


def test_rows_of_a_table_are_as_wide_as_its_head_and_no_table_is_torn() -> None:
    text = render(card(NASTY), READERS)
    outside = re.sub(r"```.*?```", "code", text, flags=re.S)
    blocks = [
        [tables(line)[0] for line in block.splitlines()]
        for block in re.findall(r"(?:^\|.*\n)+", outside, flags=re.M)
    ]
    assert len(blocks) >= 7
    for block in blocks:
        assert len({len(row) for row in block}) == 1, block[0]
        assert re.fullmatch(r"[-:|]+", "|".join(block[1])), block
    assert "\n\n\n" not in outside
    assert outside.count("\n# ") + outside.startswith("# ") == 1


@pytest.mark.parametrize("name", NASTY)
def test_names_that_users_gave_are_shown_and_do_nothing(name: str) -> None:
    text = render(card([name, "plain"], name=name), READERS)
    assert name not in text or not re.search(r"[|\[<*`#\n{]", name)
    assert text.splitlines()[0] == f"# {escaped(name)}"
    assert "\n## two" not in text
    assert "49" not in str(escaped("{{ 7*7 }}"))
    code = "".join(re.findall(r"```.*?```", text, flags=re.S))
    assert name not in code


@given(st.text(min_size=1))
def test_escaped_text_reads_back_as_what_was_shown(name: str) -> None:
    from bottleneck.system.durable import shown

    text = escaped(name)
    assert len(text.splitlines()) <= 1
    # A backslash before punctuation is that punctuation, in CommonMark: nothing else is special any more.
    assert re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", text) == shown(name)
    assert not re.search(r"(?<!\\)(?:\\\\)*[|<>\[\]*_`#]", text)


@pytest.mark.parametrize("exporter", EXPORTERS, ids=lambda e: e.kind)
def test_what_is_printed_of_a_reader_runs_by_itself(exporter: Exporter) -> None:
    text = reader_text(exporter.reader)
    whole = excerpt(text, "document")
    function = whole[whole.index("def document") :]
    # The issue's five lines, not counting what a person may leave out.
    assert len([line for line in function.splitlines() if '"""' not in line]) <= 6
    compile(whole, "excerpt", "exec")
    for name in ("document", "open_model"):
        printed = excerpt(text, name)
        assert printed in render(card(), READERS) or exporter.kind.startswith("litert-")
        assert set(printed.splitlines()) <= set(text.splitlines())


def test_the_excerpt_of_a_reader_reads_an_artefact(tmp_path) -> None:
    import json
    import zipfile

    with zipfile.ZipFile(tmp_path / "model.tflite", "w") as archive:
        archive.writestr("bottleneck.json", json.dumps({"classes": ["a"]}))
    scope: dict[str, object] = {}
    exec(excerpt(reader_text(EXPORTERS[0].reader), "document").replace("import keras", ""), scope)
    assert scope["document"](str(tmp_path / "model.tflite")) == {"classes": ["a"]}  # type: ignore[operator]


@pytest.mark.parametrize("count", [1, 40, 41, 500])
def test_many_classes_are_cut_short_and_counted(count: int) -> None:
    names = [f"class-{i:03d}" for i in range(count)]
    text = render(card(names), READERS)
    assert "class-000" in text
    assert ("class-499" in text) is False
    if count > 40:
        assert f"{count - 20} more in `labels.txt`" in text


def test_without_held_out_images_the_card_promises_nothing() -> None:
    made = card()
    text = render(made.model_copy(update={"metrics": {"train": made.metrics["train"]}}), READERS)
    assert "No image was held out" in text
    unknown = made.model_copy(update={"data": made.data.model_copy(update={"rejected": None})})
    assert "is not known any more" in render(unknown, READERS)
    none = made.model_copy(update={"data": made.data.model_copy(update={"rejected": ()})})
    assert "No image was rejected" in render(none, READERS)


def test_the_card_says_how_images_were_held_out_and_which_classes_have_none() -> None:
    made = card()
    assert "no validation image" not in render(made, READERS) and "--split" not in render(made, READERS)
    policy = SplitPolicy(kind="exact", why="the smallest class has 12 images, under 50")
    half = measure_probabilities(["cat"] * 4, np.tile([0.9, 0.1], (4, 1)), ("cat", "dog")).model_dump(
        mode="json"
    )
    found = made.model_copy(update={"split": policy, "metrics": {**made.metrics, "validation": half}})
    text = render(found, READERS)
    assert (
        "1 of 2 classes has no validation image: validation figures, and what training chose by them," in text
    )
    assert "`--split exact`, 0.2 held out, seed 0 (the smallest class has 12 images, under 50)" in text
    assert Card.model_validate_json(found.model_dump_json()).split == policy


def test_a_source_that_names_its_validation_images_had_nothing_held_out() -> None:
    for kind in ("hash", "exact"):
        policy = SplitPolicy(kind=kind, why=NAMED_BY_SOURCE)  # type: ignore[arg-type]
        text = render(card(split=policy), READERS)
        assert "\nValidation images: as the source names them.\n" in text
        assert "held out, seed" not in text and "--split" not in text


def test_a_card_of_format_1_is_read() -> None:
    made = card().model_dump(mode="json", exclude={"fit", "split"})
    assert made["format"] == 2
    old = Card.model_validate({**made, "format": 1})
    assert (old.format, old.fit, old.split) == (1, None, None)


def test_a_tuned_base_says_so() -> None:
    stage = StageDone(
        unfreeze=("top:1",),
        trained=("fire9_squeeze", "fire9_expand"),
        parameters=12345,
        frozen=7654,
        prefix="fire8",
        history=({"epoch": 0, "val_loss": 0.5}, {"epoch": 1, "val_loss": 0.25}),
        best_epoch=1,
    )
    tuned = Tuned(
        origin="runs/digits|x",
        origin_recipe="c" * 64,
        base="squeezenet",
        blocks="",
        settings=TuneSettings(),
        stages=(stage,),
        kept="after",
    )
    text = render(card(tuned=tuned), READERS)
    assert "top:1" in text.replace("\\", "")
    assert "12,345 | 7,654 | cached rows of fire8 | 1 | 1 | 0.5000 | 0.2500 |" in text
    assert "digits\\|x" in text
    kept = render(card(tuned=tuned.model_copy(update={"kept": "before"})), READERS)
    assert "as it was before" in kept
    assert "Not measured" not in text + kept
    blind = stage.model_copy(update={"history": ({"epoch": 0}, {"epoch": 1, "loss": 0.25})})
    assert "**Not measured**" in render(card(tuned=tuned.model_copy(update={"stages": (blind,)})), READERS)
