"""The commands, one function each: options in, one call, one result out."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from bottleneck import __version__
from bottleneck.cli.finetune import UNFREEZE, asked_after, tune_after
from bottleneck.cli.options import (
    ALLOW_HOST,
    BASE,
    READING,
    REHASH,
    SCORE,
    SESSION,
    SOURCE,
    TEAM,
    TRUST,
    VIEWS,
    max_bad,
)
from bottleneck.cli.output import Output, note, say
from bottleneck.cli.streams import writing
from bottleneck.errors import UsageError
from bottleneck.schema import json_value


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="bottleneck")
def app() -> None:
    """Run a frozen base once over images, train heads on its features
    in seconds, merge, and prove the merge.

    SOURCE is a folder with one sub-folder a class, train/ val/ test/ of these, a flat folder, a CSV or Parquet
    table `path,label[,group,split]`, a zip, a WebDataset tar, or the URL of one of these.
    """


@app.command(short_help="What bases there are, with sizes, cuts and shapes.")
@click.argument("name", required=False)
@SESSION
def bases(name: str | None, output: Output, **_: Any) -> None:
    """What bases there are: size, cuts, feature shapes, parameters,
    where weights come from.
    """
    from bottleneck.cli.tables import training
    from bottleneck.pipeline.lookup import base_named, list_bases

    found = list_bases() if name is None else [base_named(name)]
    output.show(
        lambda: {"bases": [one.to_json() for one in found]},
        lambda: training.base_details(found[0]) if name else training.base_table(found),
    )


@app.command(short_help="Fill the store: each new image goes through the base once.")
@SOURCE
@BASE
@VIEWS
@click.option("--dry-run", is_flag=True, help="Say what there is to compute, and write nothing.")
@TEAM
@READING
@SESSION
def extract(source: str, dry_run: bool, output: Output, **options: Any) -> None:
    """Fill the store:
    each image that it lacks goes through the base once.
    """
    import bottleneck
    from bottleneck.cli.tables import common, extraction
    from bottleneck.pipeline.extract import extract_cuts
    from bottleneck.pipeline.foresee import foresee, foresee_cuts

    base, cuts = options.pop("base"), [name.strip() for name in (options["cut"] or "").split(",")]
    table: Callable[[Any], Any] = extraction.estimate_table if dry_run else extraction.extraction_table
    done: Any
    if len(cuts) == 1:
        done = (foresee if dry_run else bottleneck.extract)(source, base, **output.session(options))
        output.show(done.to_json, lambda: table(done))
    else:
        del options["cut"]
        done = (foresee_cuts if dry_run else extract_cuts)(source, base, cuts, **output.session(options))
        output.show(
            lambda: {"cuts": {cut: one.to_json() for cut, one in done.items()}},
            lambda: common.stacked(*map(table, done.values())),
        )


@app.command(short_help="Take features out for other tools.")
@SOURCE
@BASE
@click.option("--out", required=True, type=click.Path(file_okay=False), help="Folder to write to.")
@click.option(
    "--format", "kind", type=click.Choice(["npy", "parquet", "h5"]), default="npy", show_default=True
)
@READING
@SESSION
def features(source: str, out: str, kind: Any, output: Output, **options: Any) -> None:
    """Take features out for other tools:
    a matrix and a table in the same order.
    """
    import bottleneck
    from bottleneck.cli.tables import extraction

    rows = bottleneck.features(source, options.pop("base"), out=out, format=kind, **output.session(options))
    output.show(
        lambda: rows.to_json(Path(out), kind),
        lambda: extraction.features_table(rows, Path(out), kind),
    )


@app.command(short_help="Train a head on cached features.")
@SOURCE
@BASE
@VIEWS
@click.option("--head", default="logistic", show_default=True, metavar="NAME", help="logistic or dense.")
@click.option("--set", "given", multiple=True, metavar="KEY=VALUE", help="A setting of the head; repeatable.")
@click.option(
    "--validation",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.2,
    show_default=True,
    help="Share of training images held out, unless the source names a validation split.",
)
@click.option(
    "--split",
    type=click.Choice(["auto", "hash", "exact"]),
    default="auto",
    show_default=True,
    help="exact: each class gives its share; hash: each image is drawn by itself, whatever is added; auto: exact "
    "where classes are small.",
)
@click.option("--folds", type=click.IntRange(2), metavar="K", help="Cross-validate too.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--run", required=True, type=click.Path(file_okay=False), help="Folder for the run.")
@click.option(
    "--unfreeze",
    multiple=True,
    metavar=UNFREEZE,
    help="Fine-tune afterwards, into RUN-tuned: see `bottleneck finetune`. Repeatable.",
)
@click.option(
    "--tune", multiple=True, metavar="KEY=VALUE", help="A setting of that (epochs=5, rate=1e-3); repeatable."
)
@READING
@SESSION
def train(
    source: str,
    given: tuple[str, ...],
    unfreeze: tuple[str, ...],
    tune: tuple[str, ...],
    output: Output,
    **options: Any,
) -> None:
    """Train a head on cached features; what is missing is extracted first."""
    import bottleneck
    from bottleneck.cli.tables import training

    settings = {}
    for item in given:
        key, equals, value = item.partition("=")
        if not equals:
            raise UsageError(f"--set {item!r}: expected KEY=VALUE, for instance --set C=0.1")
        settings[key.strip()] = value
    after = asked_after(unfreeze, tune)
    done = bottleneck.train(
        source, options.pop("base"), settings=settings, on_message=note, **output.session(options)
    )
    if after is None:
        output.show(done.to_json, lambda: training.training_table(done))
    else:
        tune_after(done, unfreeze, after, output, options)


@app.command(short_help="Measure a run's head.")
@click.argument("run", type=click.Path(readable=False))
@click.argument("source", type=click.Path(readable=False), required=False)
@click.option(
    "--average-views", is_flag=True, help="Of the mean of the probabilities over the views it was trained on."
)
@TRUST
@READING
@SESSION
def evaluate(run: str, source: str | None, output: Output, **options: Any) -> None:
    """Measure a run's head: on its own splits, or on another SOURCE."""
    import bottleneck
    from bottleneck.cli.tables import training

    found = bottleneck.evaluate(run, source, on_message=note, **output.session(options))
    output.show(
        lambda: {"run": run, "metrics": json_value(found)},
        lambda: training.evaluation_table(found),
    )


@app.command(short_help="Class probabilities, one line an image.")
@click.argument("run_or_model", metavar="RUN|MODEL.keras", type=click.Path(readable=False))
@SOURCE
@click.option("--format", "kind", type=click.Choice(["csv", "jsonl"]), default="csv", show_default=True)
@max_bad(1.0)
@REHASH
@TRUST
@ALLOW_HOST
@SESSION
def predict(run_or_model: str, source: str, kind: str, output: Output, **options: Any) -> None:
    """Class probabilities for each image, one line a file, on standard output."""
    import bottleneck

    found = bottleneck.predict(run_or_model, source, **output.session(options))
    if output.as_json:
        output.show(found.to_json, lambda: None)
        return
    if sys.stdout is not None:  # closed by whoever called
        with writing():
            for line in found.lines(kind):
                sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()


@app.command(short_help="One certified model from image to probabilities.")
@click.argument("run", type=click.Path(readable=False))
@click.option("--out", required=True, type=click.Path(dir_okay=False), help="The .keras file to write.")
@SCORE
@TRUST
@ALLOW_HOST
@SESSION
def merge(run: str, out: str, output: Output, **options: Any) -> None:
    """One model from image to probabilities,
    certified equal to the run's cached head.
    """
    import bottleneck
    from bottleneck.cli.tables import training

    done = bottleneck.merge(run, out, **output.session(options))
    output.show(done.to_json, lambda: training.delivery_table(done))


@app.command(short_help="Certified artefacts: Keras, SavedModel, LiteRT, ONNX, OpenVINO.")
@click.argument("run", type=click.Path(readable=False))
@click.option(
    "--format",
    "formats",
    required=True,
    metavar="KIND[,KIND]…",
    help="keras, saved_model, litert, litert-float16, litert-dynamic, litert-int16x8, litert-int8, onnx, openvino; "
    "or all.",
)
@click.option(
    "--out", required=True, type=click.Path(file_okay=False, readable=False), help="Folder to make."
)
@click.option(
    "--gate",
    type=click.FloatRange(0, 1),
    default=0.97,
    show_default=True,
    help="Share of the head's first choices that a kind that rounds must keep to be delivered.",
)
@click.option(
    "--images",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    metavar="N",
    help="Images of the run to compare on, at most.",
)
@SCORE
@TRUST
@ALLOW_HOST
@SESSION
def export(run: str, out: str, formats: str, output: Output, **options: Any) -> None:
    """A folder of artefacts,
    each run by a process without this package and certified equal to the cached head.

    With labels, the pixel contract as one Python file, the certificate and a model card. Kinds that round are
    delivered when they pass the gate and are refused by name when they do not; where any other differs, nothing is
    delivered, and what an earlier export left at --out stays as it is.
    """
    import bottleneck
    from bottleneck.cli.tables import exports

    kinds = [kind.strip() for kind in formats.split(",") if kind.strip()]
    done = bottleneck.export(run, out, kinds, **output.session(options))
    for kind in done.left_out:
        note(f"{kind} was left out: its library is not installed here")
    for item in done.manifest.refused:
        note(f"{item.kind} is not delivered: {item.why}")
    output.show(done.to_json, lambda: exports.export_table(done))


@app.command(short_help="The whole trip on real images.")
@click.option(
    "--images", type=click.Path(readable=False), help="Your own class folders instead of the digits."
)
@click.option("--out", type=click.Path(file_okay=False), default="bottleneck-demo", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the held-out split.")
@SESSION
def demo(images: str | None, out: str, seed: int, output: Output, **options: Any) -> None:
    """The whole trip on real images:
    extract, train two heads, merge the better one, certify it.
    """
    from bottleneck.cli.tables import training
    from bottleneck.pipeline import demo as trip

    speak = (lambda _: None) if output.quiet or output.as_json else say
    done = trip.run_demo(Path(out), images, seed=seed, say=speak, session=output.session(options))
    output.show(done.to_json, lambda: training.demo_table(done))
