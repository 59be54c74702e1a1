"""The command line: options in, one pipeline call, a table or one JSON object out. The only place that prints."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from bottleneck import __version__
from bottleneck.errors import BottleneckError, UsageError
from bottleneck.streams import Terminated, drop_output, speaking, writing

if TYPE_CHECKING:
    from bottleneck.progress import Progress

Command = Callable[..., Any]

_SOURCE = click.argument("source", type=click.Path(readable=False))


def _options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several click options as one decorator, in the order given."""
    return lambda command: functools.reduce(
        lambda wrapped, option: option(wrapped), reversed(options), command
    )


_BASE = _options(
    click.option("--base", required=True, metavar="NAME|FILE.keras|MODULE:FUNCTION", help="The frozen base."),
    click.option(
        "--weights", metavar="imagenet|PATH|random:SEED", help="Its weights.  [default: the base's own]"
    ),
    click.option("--cut", metavar="NAME", help="Layer or alias where features are taken (pool5, fc6, …)."),
    click.option("--pooling", type=click.Choice(["none", "avg", "max"]), help="How maps become vectors."),
    click.option("--size", type=int, metavar="N", help="Height and width in pixels."),
    click.option(
        "--resize",
        type=click.Choice(["stretch", "crop", "pad"]),
        default="stretch",
        show_default=True,
        help="How images come to that size.",
    ),
    click.option(
        "--preprocessing", metavar="NAME|scale=…,offset=…,channels=…", help="Needed for your own models."
    ),
    click.option(
        "--precision", type=click.Choice(["float32"]), default="float32", help="Of the forward pass."
    ),
    click.option(
        "--dtype",
        type=click.Choice(["float32", "float16"]),
        default="float32",
        show_default=True,
        help="Of stored features.",
    ),
    click.option(
        "--batch", type=int, metavar="N", help="Images a forward pass.  [default: the store's, else 32]"
    ),
)

_SESSION = _options(
    click.option(
        "--cache", type=click.Path(file_okay=False), help="[default: $BOTTLENECK_CACHE, else the user's]"
    ),
    click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output."),
    click.option("--quiet", is_flag=True, help="No progress bars, no tables."),
)

_READING = _options(
    click.option(
        "--max-bad",
        type=click.FloatRange(0, 1),
        default=0.01,
        show_default=True,
        help="Share of images that may be rejected.",
    ),
    click.option("--rehash", is_flag=True, help="Read every file again, whatever the scan index says."),
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="bottleneck")
def app() -> None:
    """Run a frozen base once over images, train heads on its features in seconds, merge, and prove the merge.

    SOURCE is a folder with one sub-folder a class, train/ val/ test/ of these, a flat folder, a CSV or Parquet
    table `path,label[,group,split]`, a zip, or a WebDataset tar.
    """


@app.command(short_help="What bases there are, with sizes, cuts and shapes.")
@click.argument("name", required=False)
@_SESSION
def bases(name: str | None, as_json: bool, quiet: bool, **_: Any) -> None:
    """What bases there are: size, cuts, feature shapes, parameters, where weights come from."""
    from bottleneck import documents, pipeline, tables

    found = pipeline.list_bases() if name is None else [pipeline.base_named(name)]
    _show(
        as_json,
        quiet,
        lambda: {"bases": [documents.base_document(b) for b in found]},
        lambda: tables.base_details(found[0]) if name else tables.base_table(found),
    )


@app.command(short_help="Fill the store: each new image goes through the base once.")
@_SOURCE
@_BASE
@_READING
@_SESSION
def extract(source: str, as_json: bool, quiet: bool, **options: Any) -> None:
    """Fill the store: each image that it lacks goes through the base once."""
    from bottleneck import documents, pipeline, tables

    done = pipeline.extract(source, options.pop("base"), **_session(quiet, options))
    _show(as_json, quiet, lambda: documents.extraction_document(done), lambda: tables.extraction_table(done))


@app.command(short_help="Take features out for other tools.")
@_SOURCE
@_BASE
@click.option("--out", required=True, type=click.Path(file_okay=False), help="Folder to write to.")
@click.option(
    "--format", "kind", type=click.Choice(["npy", "parquet", "h5"]), default="npy", show_default=True
)
@_READING
@_SESSION
def features(source: str, out: str, kind: Any, as_json: bool, quiet: bool, **options: Any) -> None:
    """Take features out for other tools: a matrix and a table in the same order."""
    from bottleneck import documents, pipeline, tables

    rows = pipeline.features(source, options.pop("base"), out=out, format=kind, **_session(quiet, options))
    _show(
        as_json,
        quiet,
        lambda: documents.features_document(rows, Path(out), kind),
        lambda: tables.features_table(rows, Path(out), kind),
    )


@app.command(short_help="Train a head on cached features.")
@_SOURCE
@_BASE
@click.option("--head", default="logistic", show_default=True, metavar="NAME", help="logistic or dense.")
@click.option("--set", "given", multiple=True, metavar="KEY=VALUE", help="A setting of the head; repeatable.")
@click.option(
    "--validation",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.2,
    show_default=True,
    help="Share of training images held out, unless the source names a validation split.",
)
@click.option("--split", type=click.Choice(["hash", "exact"]), default="hash", show_default=True)
@click.option("--folds", type=click.IntRange(2), metavar="K", help="Cross-validate too.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--run", required=True, type=click.Path(file_okay=False), help="Folder for the run.")
@_READING
@_SESSION
def train(source: str, given: tuple[str, ...], as_json: bool, quiet: bool, **options: Any) -> None:
    """Train a head on cached features; what is missing is extracted first."""
    from bottleneck import documents, pipeline, tables

    settings = {}
    for item in given:
        key, equals, value = item.partition("=")
        if not equals:
            raise UsageError(f"--set {item!r}: expected KEY=VALUE, for instance --set C=0.1")
        settings[key.strip()] = value
    done = pipeline.train(
        source, options.pop("base"), settings=settings, told=_note, **_session(quiet, options)
    )
    _show(as_json, quiet, lambda: documents.training_document(done), lambda: tables.training_table(done))


@app.command(short_help="Measure a run's head.")
@click.argument("run", type=click.Path(readable=False))
@click.argument("source", type=click.Path(readable=False), required=False)
@_READING
@_SESSION
def evaluate(run: str, source: str | None, as_json: bool, quiet: bool, **options: Any) -> None:
    """Measure a run's head: on its own splits, or on another SOURCE."""
    from bottleneck import documents, pipeline, tables

    found = pipeline.evaluate(run, source, told=_note, **_session(quiet, options))
    _show(
        as_json,
        quiet,
        lambda: {"run": run, **documents.metrics_document(found)},
        lambda: tables.evaluation_table(found),
    )


@app.command(short_help="Class probabilities, one line an image.")
@click.argument("run_or_model", metavar="RUN|MODEL.keras", type=click.Path(readable=False))
@_SOURCE
@click.option("--format", "kind", type=click.Choice(["csv", "jsonl"]), default="csv", show_default=True)
@click.option(
    "--max-bad",
    type=click.FloatRange(0, 1),
    default=1.0,
    show_default=True,
    help="Share of images that may be rejected.",
)
@click.option("--rehash", is_flag=True, help="Read every file again, whatever the scan index says.")
@_SESSION
def predict(run_or_model: str, source: str, kind: str, as_json: bool, quiet: bool, **options: Any) -> None:
    """Class probabilities for each image, one line a file, on standard output."""
    from bottleneck import documents, pipeline

    found = pipeline.predict(run_or_model, source, **_session(quiet, options))
    if as_json:
        _show(True, quiet, lambda: documents.predictions_document(found), lambda: None)
        return
    if sys.stdout is not None:  # closed by whoever called
        with writing():
            for line in found.lines(kind):
                sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()


@app.command(short_help="One certified model from image to probabilities.")
@click.argument("run", type=click.Path(readable=False))
@click.option("--out", required=True, type=click.Path(dir_okay=False), help="The .keras file to write.")
@_SESSION
def merge(run: str, out: str, as_json: bool, quiet: bool, **options: Any) -> None:
    """One model from image to probabilities, certified equal to the run's cached head."""
    from bottleneck import documents, pipeline, tables

    done = pipeline.merge(run, out, **_session(quiet, options))
    _show(as_json, quiet, lambda: documents.delivery_document(done), lambda: tables.delivery_table(done))


@app.command(short_help="The whole trip on real images.")
@click.option(
    "--images", type=click.Path(readable=False), help="Your own class folders instead of the digits."
)
@click.option("--out", type=click.Path(file_okay=False), default="bottleneck-demo", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the held-out split.")
@_SESSION
def demo(images: str | None, out: str, seed: int, as_json: bool, quiet: bool, **options: Any) -> None:
    """The whole trip on real images: extract, train two heads, merge the better one, certify it."""
    from bottleneck import demo as trip
    from bottleneck import documents, tables

    say = (lambda _: None) if quiet or as_json else _say
    done = trip.run(Path(out), images, seed=seed, say=say, session=_session(quiet, options))
    _show(as_json, quiet, lambda: documents.demo_document(done), lambda: tables.demo_table(done))


# ------------------------------------------------------------------------------------------------ how it speaks


def _session(quiet: bool, options: dict[str, Any]) -> dict[str, Any]:
    """Options as the pipeline takes them, with the progress a person should see."""
    return {**options, "progress": _progress(quiet)}


def _progress(quiet: bool) -> Progress:
    from bottleneck.progress import Silent, Terminal

    return Silent() if quiet else Terminal()


def _note(text: str) -> None:
    click.echo(f"note: {text}", err=True)


def _say(text: str) -> None:
    # What happens next is not worth a run: standard output may be full, or nobody may listen.
    with contextlib.suppress(OSError):
        click.echo(text)


def _show(as_json: bool, quiet: bool, document: Callable[[], Any], table: Callable[[], Any]) -> None:
    if as_json:
        with writing():
            click.echo(json.dumps(document(), allow_nan=False))
    elif not quiet:
        from rich.console import Console

        # A file or a pipe has no right edge; lines that people copy (paths, commands) run on at any width.
        console = Console(highlight=False)
        if not console.is_terminal and "COLUMNS" not in os.environ:
            console.width = 160
        with writing():
            console.print(table(), crop=False)


def _warn_of_namesake() -> None:
    """PyPI's `Bottleneck` installs a package of the same name over this one."""
    import importlib.metadata

    try:
        importlib.metadata.version("Bottleneck")
    except importlib.metadata.PackageNotFoundError:
        return
    _note(
        "the distribution 'Bottleneck' (pandas' accelerator) is installed in this environment too; both are "
        "imported as `bottleneck`, so one of them is broken. Keep them in separate environments: "
        "pip uninstall Bottleneck, then pip install --force-reinstall --no-deps bottleneck-features"
    )


def main(arguments: list[str] | None = None) -> None:
    """Entry point. Exit status: 0 done, 1 failed, 2 wrong usage, 3 too many bad images, 130 and 143 interrupted."""
    # TensorFlow logs what it finds on the machine, and every missing GPU driver as an error.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # pyarrow imports pandas where there is one, and pandas wonders about our name; here that is no news.
    warnings.filterwarnings("ignore", "Pandas requires version .* of 'bottleneck'", UserWarning)
    arguments = sys.argv[1:] if arguments is None else arguments
    with speaking():
        _warn_of_namesake()
        _run(arguments, "--json" in arguments)


def _run(arguments: list[str], as_json: bool) -> None:
    try:
        app.main(arguments, prog_name="bottleneck", standalone_mode=False)
    except BottleneckError as error:
        _fail(str(error), error.exit_status, type(error).__name__, as_json)
    except click.ClickException as error:
        if as_json:
            _fail(error.format_message(), error.exit_code, "UsageError", True)
        error.show()
        raise SystemExit(error.exit_code) from error
    except (click.Abort, KeyboardInterrupt):
        _fail(f"interrupted; {_KEPT}", 130, "Interrupted", as_json)
    except Terminated as error:
        _fail(f"terminated; {_KEPT}", int(str(error.code)), "Terminated", as_json)
    except BrokenPipeError:
        # Whoever read our output has seen enough.
        drop_output()
        raise SystemExit(1) from None
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        _fail(f"{error.strerror or error}{where}", 1, type(error).__name__, as_json)
    except Exception as error:
        # A fault of ours: the traceback is for its report, the object for the program that waits for one.
        if as_json:
            _say(json.dumps({"error": str(error), "kind": type(error).__name__, "exit_status": 1}))
        raise


_KEPT = "finished shards are kept, and the same command goes on from there"


def _fail(text: str, status: int, kind: str, as_json: bool) -> NoReturn:
    from bottleneck.files import shown

    # Line breaks of our own messages stay; what comes from file names was escaped where the message was made.
    safe = "\n".join(shown(line) for line in text.split("\n"))
    if as_json:
        _say(json.dumps({"error": text, "kind": kind, "exit_status": status}))
    click.echo(f"error: {safe}", err=True)
    raise SystemExit(status)
