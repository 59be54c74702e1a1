"""Table of a fine-tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bottleneck.cli.tables.common import columns, facts_list, stacked
from bottleneck.pipeline.finetune import FineTuned

if TYPE_CHECKING:
    from rich.console import RenderableType

#: Names of layers that are shown in full.
_SHOWN = 6
#: How the facts of an epoch are written.
_FORMS = dict.fromkeys(("loss", "accuracy", "val_loss", "val_accuracy"), ".4f") | {
    "rate": ".2g",
    "seconds": ".1f",
}


def finetuned_table(done: FineTuned) -> RenderableType:
    """Show each stage's epochs, the figures before and after, the verdict."""
    parts: list[RenderableType] = []
    for stage in done.tuned.stages:
        watched = any("val_loss" in entry for entry in stage.history)
        table = columns(
            "epoch",
            ">loss",
            ">accuracy",
            ">validation loss",
            ">validation accuracy",
            ">rate",
            ">seconds",
            title=f"--unfreeze {','.join(stage.unfreeze)}: {stage.parameters:,} parameters, "
            + (f"on cached rows of {stage.prefix}" if stage.prefix else "from the pixels"),
        )
        for entry in stage.history:
            number = int(entry["epoch"])
            best = " (kept)" if number == stage.best_epoch and watched else ""
            table.add_row(
                f"{number or 'before'}{best}",
                *(f"{entry[name]:{form}}" if name in entry else "" for name, form in _FORMS.items()),
            )
        parts.append(table)
    figures = columns(
        "split", ">images", ">accuracy before", ">after", ">95 % interval", ">log loss before", ">after"
    )
    for name, now in done.metrics.items():
        then = done.before.get(name)
        figures.add_row(
            name,
            f"{now.images:,}",
            f"{then.accuracy:.4f}" if then else "",
            f"{now.accuracy:.4f}",
            f"{now.interval[0]:.3f} … {now.interval[1]:.3f}",
            f"{then.log_loss:.4f}" if then else "",
            f"{now.log_loss:.4f}",
        )
    last = done.tuned.stages[-1]
    more = f" and {len(last.trained) - _SHOWN} more" if len(last.trained) > _SHOWN else ""
    kept = {
        "better": "the tuned model: its validation loss is lower",
        "unchanged": "the model as it was: no epoch lowered the validation loss",
        "unmeasured": "the last epoch, not measured: no validation images, so nothing says that it is better",
    }[done.tuned.verdict]
    facts = [
        ("kept", kept),
        ("trained", f"{', '.join(last.trained[:_SHOWN])}{more}, and the head"),
        (
            "frozen",
            f"{last.frozen:,} numbers above the prefix, moving statistics among them: unchanged to the bit",
        ),
        ("in", f"{done.folder.figures.seconds:.1f} s"),
        ("run", str(done.folder.path)),
        ("next", done.folder.merging),
    ]
    return stacked(*parts, figures, facts_list(facts))
