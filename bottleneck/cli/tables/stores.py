"""Tables of `bottleneck store …`."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bottleneck.cli.tables.common import columns, extents, facts_list, plain_text, stacked
from bottleneck.pipeline.stores import Checked
from bottleneck.schema import format_size
from bottleneck.store.maintenance.compact import Compaction
from bottleneck.store.maintenance.copy import Copied
from bottleneck.store.maintenance.prune import Pruning
from bottleneck.store.maintenance.shard_check import Damage
from bottleneck.store.maintenance.state import StoreState

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_SHOWN = 10


def states_table(states: Sequence[StoreState]) -> RenderableType:
    """Show all stores of a cache."""
    if not states:
        return plain_text("no stores yet: bottleneck extract SOURCE --base NAME makes one")
    table = columns(
        "base", "cut", "recipe", ">rows", ">row", "type", ">shards", ">size", ">damaged", "last change"
    )
    problems: list[str] = []
    for state in states:
        if state.header is None:
            problems.append(f"{state.folder.name}: {state.problem}")
            continue
        spec = state.header.spec
        table.add_row(
            plain_text(spec.base),
            plain_text(spec.cut + (" (views)" if spec.views else "")),
            spec.recipe.fingerprint[:12],
            f"{state.rows:,}",
            extents(spec.shape),
            spec.recipe.dtype,
            f"{state.shards:,}",
            format_size(state.size),
            f"{len(state.damaged or {}):,}",
            _time_text(state.changed),
        )
    note = "One store in detail: bottleneck store show RECIPE (or another part of its name)"
    return stacked(table, plain_text("\n".join([*problems, note])))


def state_table(state: StoreState) -> RenderableType:
    """Show one store."""
    if state.header is None:
        return facts_list(
            [("folder", str(state.folder)), ("problem", state.problem), ("size", format_size(state.size))]
        )
    header, spec = state.header, state.header.spec
    recipe, pixels = spec.recipe, spec.recipe.pixels
    facts = [
        ("folder", str(state.folder)),
        ("recipe", recipe.fingerprint),
        ("base", f"{spec.base}, digest {recipe.base_digest[:16]}"),
        ("cut", spec.cut if recipe.pooling == "none" else f"{spec.cut}, {recipe.pooling} pooling"),
        ("pixels", f"{pixels.height} x {pixels.width}, {pixels.resize}"),
        ("preprocessing", str(recipe.preprocessing.model_dump(mode="json"))),
        ("row", f"{extents(spec.shape)} {recipe.dtype}, computed in {recipe.precision}"),
        ("rows", f"{state.rows:,} in {state.shards:,} shards"),
        ("size", format_size(state.size)),
        ("last change", _time_text(state.changed)),
        ("batch", str(header.batch or "")),
    ]
    if spec.views is not None:
        facts.append(("views", spec.views.model_dump_json(exclude_defaults=True)))
    if header.request is not None:
        facts.append(("asked for as", header.request.model_dump_json(exclude_defaults=True)))
    for environment, rows in state.environments:
        text = ", ".join(f"{name} {value}" for name, value in environment.items())
        facts.append((f"{rows:,} rows by", text))
    for name, items in (
        ("rejected", state.rejected),
        ("given up until limits or versions change", [why for why in state.suspects if why.final]),
        ("to be tried again", [why for why in state.suspects if not why.final]),
    ):
        if items:
            facts.append((name, f"{len(items):,}"))
        facts += [("", f"{why.content[:16]}: {why.stage}: {why.reason}") for why in items[:_SHOWN]]
    facts += _item_facts("damaged", state.damaged or {})
    return facts_list(facts, title=state.folder.name)


def checked_table(checks: Sequence[Checked]) -> RenderableType:
    """Show the checks and repairs of each store."""
    if not checks:
        return plain_text("no stores yet: there is nothing to verify")
    return stacked(*(facts_list(_check_facts(one), title=one.folder.name) for one in checks))


def _check_facts(one: Checked) -> list[tuple[str, str]]:
    facts: list[tuple[str, str]] = []
    if one.verdict is not None:
        verdict = one.verdict
        facts += [
            ("sound", f"{verdict.rows:,} rows in {verdict.shards:,} shards, {format_size(verdict.size)}"),
            ("digest", verdict.digest),
        ]
        facts += [("damaged", _damage_text(damage)) for damage in verdict.damaged]
        if any(damage.shard for damage in verdict.damaged) and one.repair is None:
            facts.append(("to do", "bottleneck store verify --repair SOURCE computes just these rows again"))
        if verdict.orphans:
            facts.append(
                ("left over", f"{len(verdict.orphans):,} files; bottleneck store prune --yes removes them")
            )
        facts += [("note", remark) for remark in verdict.remarks]
    if one.problem:
        facts.append(("note", one.problem))
    if one.repair is not None:
        repair = one.repair
        facts.append(("recomputed", f"{repair.recomputed:,} rows"))
        facts.append(
            ("put right", f"{len(repair.in_place):,} shards in place, {len(repair.superseded):,} by others")
        )
        if repair.lost:
            facts.append(
                ("lost", f"{len(repair.lost):,} rows whose images the source does not have any more")
            )
        facts += [("", content) for content in repair.lost[:_SHOWN]]
        facts += [*_item_facts("left", repair.left), *_item_facts("not removed", repair.failed)]
    if one.sample is not None:
        sample = one.sample
        facts.append(
            (
                "computed again",
                f"{sample.rows:,} rows ({sample.exact:,} compared bit for bit); {len(sample.differing):,} differ; "
                f"largest difference {sample.largest:.2g} of the spread",
            )
        )
        facts += [("differs", content) for content in sample.differing[:_SHOWN]]
        facts += _item_facts("no row now", sample.missing)
    return facts


def compaction_table(results: Sequence[Compaction | StoreState]) -> RenderableType:
    """Show what `compact` did."""
    table = columns("store", ">records before", ">after", ">rows rewritten", ">freed")
    notes = _fill(table, results, lambda one: (one.before, one.after, one.rows))
    return stacked(table, plain_text("\n".join(notes)))


def copied_table(copies: Sequence[Copied]) -> RenderableType:
    """Show what `copy` did."""
    table = columns("store", "now at", ">shards copied", ">there already", ">rows copied", ">size")
    notes: list[str] = []
    for one in copies:
        counts = (one.shards, one.present, one.rows)
        table.add_row(
            plain_text(one.source),
            plain_text(one.target),
            *(f"{count:,}" for count in counts),
            format_size(one.size),
        )
        notes += [f"{one.source}: {name} was not copied: {why}" for name, why in one.damaged.items()]
    return stacked(table, plain_text("\n".join(notes)))


def pruning_table(results: Sequence[Pruning | StoreState]) -> RenderableType:
    """Show what `prune` did, or would do."""
    table = columns("store", ">rows", ">shards", ">rewritten", ">files left over", ">freed")
    notes = _fill(table, results, lambda one: (one.rows, one.shards, one.rewritten, len(one.leftovers)))
    if not any(isinstance(one, Pruning) and one.done for one in results):
        notes.append("nothing was removed: the same command with --yes does it")
    return stacked(table, plain_text("\n".join(notes)))


def _damage_text(damage: Damage) -> str:
    where = f"shard {damage.shard}" if damage.shard else damage.name
    return f"{where}: {damage.why}"


def _fill(table: Table, results: Sequence[Any], counts_of: Callable[[Any], tuple[int, ...]]) -> list[str]:
    """Add a row for each store; return notes on the rest."""
    notes: list[str] = []
    for one in results:
        store = one.folder.name
        if isinstance(one, StoreState):
            notes.append(f"{store}: {one.problem}")
            continue
        table.add_row(plain_text(store), *(f"{count:,}" for count in counts_of(one)), _signed_size(one.freed))
        notes += [
            f"{store}: {name} is damaged and was left alone: {why}" for name, why in one.damaged.items()
        ]
        notes += [f"{store}: {name} could not be removed: {why}" for name, why in one.failed.items()]
    return notes


def _item_facts(label: str, items: Mapping[str, str]) -> list[tuple[str, str]]:
    lines = [(label, f"{name}: {why}") for name, why in list(items.items())[:_SHOWN]]
    return [*lines, (label, f"… and {len(items) - _SHOWN:,} more")] if len(items) > _SHOWN else lines


def _signed_size(count: int) -> str:
    return f"-{format_size(-count)}" if count < 0 else format_size(count)


def _time_text(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M") if seconds else ""
