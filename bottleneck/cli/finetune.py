"""`bottleneck finetune`, and the same behind `bottleneck train --unfreeze`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from bottleneck.cli.options import READING, SESSION, TRUST, options, views
from bottleneck.cli.output import Output, note
from bottleneck.errors import UsageError
from bottleneck.schema import parse_rates, parse_tune

if TYPE_CHECKING:
    from bottleneck.pipeline.train import Trained

UNFREEZE = "top:N|BLOCK|LAYER|all"

TUNING = options(
    click.option(
        "--unfreeze",
        required=True,
        multiple=True,
        metavar=UNFREEZE,
        help="What trains beside the head: the top N blocks (layers with weights, where a base has no blocks), a "
        "block or layer by name, or all; several with commas. Repeatable: stages in order, each on top of the last.",
    ),
    click.option(
        "--run", "to", type=click.Path(file_okay=False), help="Folder for the new run.  [default: RUN-tuned]"
    ),
    click.option(
        "--epochs", type=click.IntRange(1), default=10, show_default=True, help="Most, of each stage."
    ),
    click.option(
        "--patience",
        type=click.IntRange(0),
        default=3,
        show_default=True,
        help="Epochs without a lower validation loss that end a stage; 0: none does.",
    ),
    click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True),
    click.option(
        "--optimizer",
        type=click.Choice(["sgd", "adam", "adamw", "rmsprop"]),
        default="sgd",
        show_default=True,
        help="sgd has momentum 0.9.",
    ),
    click.option(
        "--rate",
        "rates",
        multiple=True,
        metavar="NUMBER|NAME=NUMBER",
        help="Learning rate, and rates of a block's, a layer's or the `head`'s own.  [default: 1e-4]",
    ),
    click.option(
        "--block-decay",
        type=click.FloatRange(0, 1, min_open=True),
        default=1.0,
        show_default=True,
        help="Each block's rate, in that of what lies above it.",
    ),
    click.option(
        "--warmup",
        type=click.FloatRange(0),
        default=0.0,
        show_default=True,
        metavar="EPOCHS",
        help="In which the rate rises from zero.",
    ),
    click.option(
        "--schedule",
        type=click.Choice(["constant", "cosine", "plateau"]),
        default="constant",
        show_default=True,
        help="plateau: a fifth of the rate after two epochs without a lower validation loss.",
    ),
    click.option("--class-weight", type=click.Choice(["balanced"]), help="Rare classes count more."),
    click.option(
        "--precision",
        type=click.Choice(["float32", "mixed_bfloat16", "mixed_float16"]),
        default="float32",
        show_default=True,
        help="Of the training steps; what is measured is float32.",
    ),
    click.option(
        "--augment",
        metavar="POLICY",
        help="A new view of each image every epoch, from its pixels; with --views, how those are made.",
    ),
    views("Cache K views of each image, itself included; each epoch sees one of them."),
    click.option("--full", is_flag=True, help="From the pixels, even where the part below could be cached."),
    click.option("--seed", type=click.IntRange(0), default=0, show_default=True),
)


@click.command(short_help="Train the top of a run's base with its head.")
@click.argument("run", type=click.Path(readable=False))
@TUNING
@TRUST
@READING
@SESSION
def finetune(
    run: str,
    unfreeze: tuple[str, ...],
    rates: tuple[str, ...],
    patience: int,
    output: Output,
    **options: Any,
) -> None:
    """Train the top of a run's base together with its head;
    the result is a run like any other.

    What lies below is computed once and cached. BatchNormalization stays frozen. When the validation loss does not
    get lower, the new run is the model as it was; without validation images the last epoch is kept, unmeasured. The
    same command goes on after an interruption.
    """
    import bottleneck
    from bottleneck.cli.tables import finetune as tuning_tables

    given = {**output.session(options), **parse_rates(rates), "patience": patience or None}
    done = bottleneck.finetune(run, unfreeze, on_message=note, **given)
    output.show(
        done.to_json,
        lambda: tuning_tables.finetuned_table(done),
    )


def asked_after(unfreeze: tuple[str, ...], tune: tuple[str, ...]) -> dict[str, Any] | None:
    """Parse what `train` fine-tunes with, before hours of extraction."""
    from bottleneck.pipeline.finetune import check_tuning

    if not unfreeze:
        if tune:
            raise UsageError(f"--tune {tune[0]}: nothing is fine-tuned; say what with --unfreeze top:2")
        return None
    settings = parse_tune(tune)
    check_tuning(unfreeze, **settings)
    return settings


def tune_after(
    trained: Trained,
    unfreeze: tuple[str, ...],
    settings: dict[str, Any],
    output: Output,
    options: dict[str, Any],
) -> None:
    """Fine-tune a run that was just trained, and show both."""
    import bottleneck
    from bottleneck.cli.tables import common, training
    from bottleneck.cli.tables import finetune as tuning_tables
    from bottleneck.pipeline.session import SessionOptions

    where = {name: options[name] for name in SessionOptions.__annotations__ if name in options}
    # The base was named in this very command.
    where["trust"] = True
    done = bottleneck.finetune(
        trained.folder.path, unfreeze, on_message=note, **settings, **output.session(where)
    )
    output.show(
        lambda: {**trained.to_json(), "finetuned": done.to_json()},
        lambda: common.stacked(training.training_table(trained), tuning_tables.finetuned_table(done)),
    )
