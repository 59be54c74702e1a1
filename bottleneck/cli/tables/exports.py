"""Tables of an export."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bottleneck.cli.tables.common import columns, facts_list, plain_text, stacked
from bottleneck.exports.export import Exported
from bottleneck.schema import Comparison, format_size

if TYPE_CHECKING:
    from rich.console import RenderableType


def export_table(done: Exported) -> RenderableType:
    """Show each kind with figures and verdict, the twins and the files."""
    certificate = done.certificate
    table = columns(
        "kind",
        "file",
        ">size",
        ">ms an image",
        ">largest difference",
        ">first choices",
        ">accuracy",
        ">the head's",
        "verdict",
        title="Against the cached head, each run by a process without this package",
    )
    for item in done.manifest.artefacts:
        seen = [c for c in certificate.forms if c.form.partition(",")[0] == item.kind]
        table.add_row(
            item.kind,
            item.path,
            format_size(item.bytes),
            f"{item.milliseconds:.1f}",
            *_figures(seen),
            "equal" if seen[-1].gate is None else f"close (gate {seen[-1].gate:g})",
        )
    for refusal in done.manifest.refused:
        seen = [c for c in certificate.forms if c.form == refusal.kind]
        table.add_row(
            refusal.kind,
            "",
            "" if refusal.bytes is None else format_size(refusal.bytes),
            "" if refusal.milliseconds is None else f"{refusal.milliseconds:.1f}",
            *_figures(seen),
            "REFUSED, not delivered",
        )
    noticed = [twin.form for twin in certificate.twins if not twin.passed]
    facts = [
        ("verdict", f"{certificate.verdict} (tolerance {certificate.tolerance:.2g})"),
        ("compared on", certificate.compared),
        ("broken twins", f"{', '.join(noticed)}: noticed"),
        *(
            ("stored rows", f"{row.top1:.3f} of the first choices, centred cosine from {row.cosine:.4f}")
            for row in certificate.drift
        ),
        ("model card", str(done.folder / "card.md")),
        ("certificate", str(done.folder / "parity.json")),
        ("folder", str(done.folder)),
    ]
    parts: list[RenderableType] = [table, facts_list(facts)]
    if done.left_out:
        parts.append(plain_text(f"left out, for want of their libraries: {', '.join(done.left_out)}"))
    return stacked(*parts)


def _figures(seen: list[Comparison]) -> list[str]:
    if not seen:
        return ["", "", "", ""]
    accuracy = next((c.accuracy for c in seen if c.accuracy is not None), None)
    return [
        f"{max(c.largest for c in seen):.1e}",
        f"{min(c.top1 for c in seen):.3f}",
        *((f"{accuracy.form:.4f}", f"{accuracy.head:.4f}") if accuracy else ("", "")),
    ]
