"""Tables of extractions, estimates and features."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bottleneck.cli.tables.common import columns, duration, extents, facts_list, plain_text, stacked
from bottleneck.extraction.profile import explain_profile
from bottleneck.schema import format_size
from bottleneck.system.durable import shown

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from bottleneck.extraction.forecast.estimate import Estimate
    from bottleneck.extraction.forecast.forecast import Prediction
    from bottleneck.extraction.forecast.recommend import Suggestion
    from bottleneck.extraction.report import Extraction
    from bottleneck.store.join import Features


def extraction_table(done: Extraction) -> RenderableType:
    """Show the result of an extraction."""
    counts = [
        ("images", f"{done.images:,}"),
        ("computed", f"{done.computed:,}"),
        ("reused", f"{done.reused:,}"),
    ]
    if done.duplicates:
        counts.append(("duplicates", f"{done.duplicates:,}  (same bytes under another name)"))
    if done.rejected:
        counts.append(("rejected", f"{done.rejected:,}"))
    if done.ignored:
        why = ", ".join(f"{count:,} {name}" for name, count in done.ignored_why.items())
        counts.append(("ignored", f"{done.ignored:,}  ({why})"))
    counts += [
        (
            "row",
            f"{extents(done.spec.shape)} {done.spec.recipe.dtype}, computed in {done.spec.recipe.precision}",
        ),
        (
            "time",
            f"{done.seconds:.1f} s"
            + (f"  ({done.images_per_second:,.0f} images/s)" if done.computed else ""),
        ),
    ]
    if done.computed:
        counts.append(("bottleneck", explain_profile(done.clock)))
    if done.environments > 1:
        # Their canaries agree, or the later ones were refused; bits may differ all the same.
        several = f"{done.environments} numeric environments; `bottleneck store show` lists them"
        counts.append(("computed in", several))
    if done.rounding:
        cost = f"relative error up to {done.rounding.relative:.1e}, centred cosine from {done.rounding.cosine:.6f}"
        counts.append((f"{done.spec.recipe.dtype} costs", cost))
    if done.drift:
        cost = (
            f"relative error up to {done.drift.relative:.1e}, centred cosine from {done.drift.cosine:.4f}, "
            f"{done.drift.mean_cosine:.4f} in the mean  (of {done.drift.images} images)"
        )
        counts.append((f"{done.spec.recipe.precision} costs", cost))
    counts.append(("store", str(done.store)))
    if done.views:
        counts += view_facts(done.views)
    parts: list[RenderableType] = [facts_list(counts, title=f"{done.spec.base} at {done.spec.cut}")]
    if done.rejections:
        table = columns("rejected", "stage", "why")
        for item in done.rejections[:20]:
            table.add_row(plain_text(shown(item.path)), item.stage, plain_text(shown(item.reason)))
        if len(done.rejections) > 20:
            table.add_row(f"… {len(done.rejections) - 20} more (--json lists all)", "", "")
        parts.append(table)
        if done.classes:
            parts.append(_class_balance(done))
    if done.damaged:
        table = columns("damaged record", "what is wrong; its images were computed anew")
        for name, what in done.damaged.items():
            table.add_row(plain_text(shown(name)), plain_text(shown(what)))
        parts.append(table)
    return stacked(*parts)


def view_facts(done: Extraction) -> list[tuple[str, str]]:
    """List the facts of augmented views."""
    counted = f"{done.computed:,} computed, {done.reused:,} reused"
    rejected = f", {done.rejected:,} rejected" if done.rejected else ""
    rate = f"  ({done.images_per_second:,.0f} views/s)" if done.computed else ""
    return [
        ("augmented views", f"{counted}{rejected}{rate}"),
        ("made by", str(done.spec.views)),
        ("their store", str(done.store)),
    ]


def _class_balance(done: Extraction) -> Table:
    """Show the classes that skipping reduced, largest loss first."""
    table = columns("class", ">images", ">with features", title="Classes after skipping")
    items = sorted(done.classes.items(), key=lambda item: item[1].rows / max(1, item[1].images))
    for label, count in items[:20]:
        table.add_row(plain_text(shown(label)), f"{count.images:,}", f"{count.rows:,}")
    if len(items) > 20:
        table.add_row(f"… {len(items) - 20} more (--json lists all)", "", "")
    return table


def estimate_table(left: Estimate) -> RenderableType:
    """Show an estimate."""
    facts = [
        ("images", f"{left.images:,}"),
        ("there already", f"{left.reused:,}"),
        (
            "to compute",
            f"{left.to_compute:,}  (in {left.tasks:,} tasks, {format_size(left.bytes)} of features)",
        ),
    ]
    if left.retried:
        facts.append(("of these again", f"{left.retried:,}  (given up before: deadline, memory, a crash)"))
    if left.unreadable:
        facts.append(("unreadable", f"{left.unreadable:,}"))
    if left.views:
        more = left.views
        facts.append(
            (
                "augmented views",
                f"{more.to_compute:,} to compute, {more.reused:,} there already  "
                f"(in {more.tasks:,} tasks, {format_size(more.bytes)} of features)",
            )
        )
    if left.prediction:
        facts += _prediction_facts(left.prediction)
    facts.append(("store", str(left.store)))
    return facts_list(facts, title=f"{left.spec.base} at {left.spec.cut}: nothing was written")


def _prediction_facts(prediction: Prediction) -> list[tuple[str, str]]:
    sizes = ", ".join(
        f"{format_size(count)} as {dtype}" for dtype, count in prediction.bytes_by_dtype.items()
    )
    return [
        (
            "will take",
            f"{duration(prediction.seconds)}  ({prediction.images_per_second:,.4g} images/s on this machine, "
            f"{prediction.batch} a forward pass; {prediction.sampled:,} were timed)",
        ),
        ("on disk", sizes),
        ("bottleneck", prediction.bottleneck),
        ("suggested", _suggestion_text(prediction.suggested)),
    ]


def _suggestion_text(suggestion: Suggestion) -> str:
    batch = f" --batch {suggestion.batch}" if suggestion.batch else ""
    told = f"--workers {suggestion.workers}{batch} --precision {suggestion.precision}"
    if suggestion.machines == 1:
        return told
    return f"{told}; {suggestion.machines:,} machines like this one (--engine dask or ray) would be done in an hour"


def features_table(rows: Features, out: Path, kind: str) -> RenderableType:
    """Show where features were written."""
    return facts_list(
        [
            ("rows", f"{len(rows):,}"),
            ("matrix", f"{extents(rows.X.shape)} {rows.X.dtype.name}"),
            ("format", kind),
            ("folder", str(out)),
        ]
    )
