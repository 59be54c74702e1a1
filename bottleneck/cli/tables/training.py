"""Tables of bases, training, merging and the demo."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from bottleneck.cli.tables.common import columns, extents, facts_list, plain_text, stacked
from bottleneck.cli.tables.extraction import extraction_table, view_facts
from bottleneck.evaluation.metrics import Metrics, absent
from bottleneck.schema import BaseSpec, Certificate, format_size
from bottleneck.system.durable import shown

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from bottleneck.exports.merged_file import MergedModel
    from bottleneck.pipeline.demo import DemoResult
    from bottleneck.pipeline.train import Trained


def base_table(bases: list[BaseSpec]) -> RenderableType:
    """List all bases."""
    table = columns("base", ">size", "default cut", ">row", ">parameters", "pixels")
    for base in bases:
        table.add_row(
            base.name,
            str(base.size),
            base.cut,
            extents(base.feature),
            f"{base.parameters / 1e6:.1f} M",
            base.preprocessing,
        )
    return stacked(
        table,
        plain_text(
            "One base in detail, with its other cuts: bottleneck bases NAME; any layer's name is a cut too\n"
            "Your own: --base FILE.keras or --base module:function, with --preprocessing"
        ),
    )


def base_details(base: BaseSpec) -> RenderableType:
    """Show one base."""
    cuts = columns("cut", "layer", "pooling", "needs the top")
    for name, cut in base.cuts.items():
        mark = " (default)" if name == base.cut else ""
        cuts.add_row(name + mark, cut.layer, cut.pooling, "yes" if cut.top else "")
    facts = facts_list(
        [
            ("size", f"{base.size} px (smallest {base.smallest})"),
            ("row at the default cut", extents(base.feature)),
            ("parameters", f"{base.parameters:,} without the top"),
            ("preprocessing", base.preprocessing),
            ("blocks", base.blocks),
            ("weights", base.weights),
        ],
        title=base.name,
    )
    return stacked(facts, cuts)


def metrics_table(by_split: Mapping[str, Metrics], title: str | None = None) -> Table:
    """Show figures by split."""
    table = columns(
        "split", ">images", ">accuracy", ">95 % interval", ">log loss", ">largest class", title=title
    )
    for name, m in by_split.items():
        table.add_row(
            name,
            f"{m.images:,}",
            f"{m.accuracy:.4f}",
            f"{m.interval[0]:.3f} … {m.interval[1]:.3f}",
            f"{m.log_loss:.4f}",
            f"{m.chance:.4f}",
        )
    return table


def evaluation_table(by_split: Mapping[str, Metrics]) -> RenderableType:
    """Show figures by split, and by class of the last split."""
    parts: list[RenderableType] = [metrics_table(by_split)]
    name, last = list(by_split.items())[-1]
    each = columns(
        "class", ">images", ">recall", ">precision", "most often taken for", title=f"{name}, by class"
    )
    for row, item in enumerate(last.classes[:50]):
        wrong = [
            (count, column) for column, count in enumerate(last.confusion[row]) if column != row and count
        ]
        other = f"{last.classes[max(wrong)[1]].name} ({max(wrong)[0]})" if wrong else ""
        each.add_row(
            plain_text(shown(item.name)),
            f"{item.images:,}",
            *(f"{v:.3f}" if v is not None else "-" for v in (item.recall, item.precision)),
            plain_text(shown(other)),
        )
    if len(last.classes) > 50:
        each.add_row(f"… {len(last.classes) - 50} more", "", "", "", "")
    parts.append(each)
    return stacked(*parts)


def training_table(done: Trained) -> RenderableType:
    """Show the result of a training run."""
    run, figures = done.folder.run, done.folder.figures
    parts: list[RenderableType] = [
        metrics_table(done.metrics, title=f"{run.head.name} on {run.spec.base} at {run.spec.cut}")
    ]
    if figures.folds:
        import statistics

        values = [m.accuracy for m in figures.folds]
        parts.append(
            plain_text(
                f"{len(values)} folds, a fresh head each: accuracy {statistics.mean(values):.4f} "
                f"± {statistics.stdev(values):.4f} (from {min(values):.4f} to {max(values):.4f})"
            )
        )
    extraction = done.extraction
    parts.append(
        facts_list(
            [
                ("features", f"{extraction.computed:,} computed, {extraction.reused:,} reused"),
                *(view_facts(extraction.views) if extraction.views else []),
                ("split", f"{run.split.kind}: {run.split.why or 'as asked'}"),
                *(
                    ("mind", f"{count:,} of {len(run.classes):,} classes have no {name} image")
                    for name, count in absent(done.metrics).items()
                ),
                *(figures.fit.lines if figures.fit else ()),
                ("head trained in", f"{figures.seconds:.1f} s"),
                ("run", str(done.folder.path)),
                ("next", done.folder.merging),
            ]
        )
    )
    return stacked(*parts)


def parity_table(certificate: Certificate) -> Table:
    """Show a certificate: forms must agree, broken twins must not."""
    table = columns(
        "form",
        ">features",
        ">logits",
        ">probab.",
        ">top-1",
        "verdict",
        title="Largest difference from the cached head, in spreads between images\n"
        f"({certificate.compared}; broken twins must be refused)",
    )
    for name, item, good, bad in [
        *((f"{c.form}, {c.images}", c, "equal", "DIFFERENT") for c in certificate.forms),
        *((f"{c.form}, {c.images}", c, "close", "TOO COARSE") for c in certificate.drift),
        *((c.form, c, "NOT NOTICED", "refused") for c in certificate.twins),
    ]:
        table.add_row(
            name,
            *(f"{d.largest:.1e}" for d in item.differences),
            f"{item.top1:.3f}",
            good if item.passed else bad,
        )
    return table


def delivery_table(done: MergedModel) -> RenderableType:
    """Show what `merge` wrote."""
    return stacked(
        parity_table(done.certificate),
        facts_list(
            [
                ("verdict", f"{done.certificate.verdict} (tolerance {done.certificate.tolerance:.2g})"),
                ("model", f"{done.model} ({format_size(done.size)})"),
                ("certificate", str(done.parity)),
                ("pixels", f"{done.decode}: image files to pixels, in one TensorFlow file"),
            ]
        ),
    )


def _unfinished(trained: Trained) -> str:
    fit = trained.folder.figures.fit
    return " (not converged)" if fit is not None and fit.converged is False else ""


def demo_table(done: DemoResult) -> RenderableType:
    """Show the demo's results, their places, and the next commands."""
    heads = columns("head", ">held-out accuracy", ">95 % interval", ">trained in")
    for name, trained in done.heads.items():
        m = done.held_out(name)
        heads.add_row(
            name + (" (better)" if name == done.best else "") + _unfinished(trained),
            f"{m.accuracy:.4f}",
            f"{m.interval[0]:.3f} … {m.interval[1]:.3f}",
            f"{trained.folder.figures.seconds:.1f} s",
        )
    # From `scripts/demo` the command is not on the path: what is to be typed must work as it stands.
    own = "bottleneck" if shutil.which("bottleneck") else os.path.relpath(sys.argv[0])
    model, run = done.delivery.model, done.heads[done.best].folder.path
    return stacked(
        extraction_table(done.extraction),
        heads,
        delivery_table(done.delivery),
        facts_list(
            [
                ("images", str(done.images)),
                ("run", str(run)),
                ("model", str(model)),
                ("all in", f"{done.seconds:.1f} s"),
            ],
            title="Where everything is",
        ),
        facts_list(
            [
                ("predict", f"{own} predict {model} YOUR_IMAGES"),
                ("look closer", f"{own} evaluate {run}"),
                ("your own classes", f"{own} demo --images FOLDER_OF_CLASS_FOLDERS"),
                ("another base", f"{own} train {done.images} --base mobilenetv2 --run runs/mobilenetv2"),
            ],
            title="What to type next",
        ),
    )
