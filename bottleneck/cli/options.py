"""Groups of options that several commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from bottleneck.cli.output import Output

Command = Callable[..., Any]

SOURCE = click.argument("source", type=click.Path(readable=False))


def options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several click options as one decorator, in the order given."""
    return lambda command: functools.reduce(
        lambda wrapped, option: option(wrapped), reversed(options), command
    )


def _with_output(command: Command) -> Command:
    @functools.wraps(command)
    def wrapped(as_json: bool, quiet: bool, **given: Any) -> Any:
        return command(output=Output(as_json, quiet), **given)

    return wrapped


def views(text: str) -> Callable[[Command], Command]:
    """Declare ``--views``, with what it does in this command."""
    return click.option(
        "--views", type=click.IntRange(1, 65536), default=1, show_default=True, metavar="K", help=text
    )


def max_bad(default: float) -> Callable[[Command], Command]:
    """Declare ``--max-bad``."""
    return click.option(
        "--max-bad",
        type=click.FloatRange(0, 1),
        default=default,
        show_default=True,
        help="Share of images that may be rejected.",
    )


REHASH = click.option("--rehash", is_flag=True, help="Read every file again, whatever the scan index says.")

BASE = options(
    click.option("--base", required=True, metavar="NAME|FILE.keras|MODULE:FUNCTION", help="The frozen base."),
    click.option(
        "--weights", metavar="imagenet|PATH|random:SEED", help="Its weights.  [default: the base's own]"
    ),
    click.option(
        "--cut",
        metavar="NAME",
        help="Layer or alias where features are taken (pool5, fc6, …); extract: several, with commas.",
    ),
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
        "--precision",
        type=click.Choice(["float32", "bfloat16", "float16", "auto"]),
        default="float32",
        show_default=True,
        help="Of the forward pass; auto: what this machine has hardware for.",
    ),
    click.option(
        "--dtype",
        type=click.Choice(["float32", "float16"]),
        default="float32",
        show_default=True,
        help="Of stored features.",
    ),
    click.option(
        "--batch",
        type=int,
        metavar="N",
        help="Images a forward pass.  [default: the store's, else 16, on a GPU 32; long runs search]",
    ),
)

SESSION = options(
    click.option(
        "--cache", type=click.Path(file_okay=False), help="[default: $BOTTLENECK_CACHE, else the user's]"
    ),
    click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output."),
    click.option("--quiet", is_flag=True, help="No progress bars, no tables."),
    _with_output,
)

VIEWS = options(
    views("Views of each image: the image itself and K - 1 augmented ones."),
    click.option(
        "--augment",
        metavar="POLICY",
        help="How these are made: names and ranges of Keras' layers (crop=0.8, zoom_width and translation_width too); "
        "what is not named is off, and `default,flip=none` changes the default.  [default: flip=horizontal, "
        "rotation=0.05, zoom=-0.2:0.1, translation=0.1, contrast=0.2, brightness=0.1, seed=0]",
    ),
)

SCORE = click.option(
    "--score",
    type=click.Choice(["energy"]),
    help="A second output: how little the head knows an image, low for images like those it learnt from.",
)

TRUST = click.option(
    "--trust", is_flag=True, help="Import and run the code that it names, where its base is module:function."
)

TEAM = options(
    click.option(
        "--engine",
        default="local",
        show_default=True,
        metavar="local|dask|ray",
        help="Where the workers are.",
    ),
    click.option(
        "--workers",
        type=click.IntRange(1, 4096),
        metavar="N",
        help="How many.  [default: one a GPU, all of a cluster, else 1]",
    ),
    click.option(
        "--threads",
        type=click.IntRange(1, 4096),
        metavar="N",
        help="Of each worker.  [default: the machine's cores divided by its workers]",
    ),
    click.option(
        "--address", metavar="ADDRESS", help="Of a Dask or Ray cluster.  [default: one is started here]"
    ),
)

ALLOW_HOST = click.option(
    "--allow-host",
    multiple=True,
    metavar="HOST",
    help="A host or bucket that a table behind a URL may name, and a server may lead to; repeatable.",
)

READING = options(
    ALLOW_HOST,
    max_bad(0.01),
    REHASH,
    click.option(
        "--remote",
        metavar="URL",
        help="A copied cache to read from what this one lacks.  [default: $BOTTLENECK_REMOTE]",
    ),
    click.option(
        "--deadline",
        type=click.FloatRange(0, min_open=True),
        default=60.0,
        show_default=True,
        metavar="SECONDS",
        help="Of silence, until the image that is worked on is given up.",
    ),
    click.option(
        "--memory-limit",
        metavar="SIZE",
        help="Of the worker process (8G): an image that passes it is given up.",
    ),
    click.option(
        "--retry-rejected",
        is_flag=True,
        help="Try images again that hung, crashed or passed a limit twice.",
    ),
)
