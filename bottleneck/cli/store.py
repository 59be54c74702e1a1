"""`bottleneck store …`: looking at stores, verifying and repairing them, keeping house."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from bottleneck.cli.options import ALLOW_HOST, SESSION, TRUST
from bottleneck.cli.output import Output
from bottleneck.cli.streams import writing
from bottleneck.schema import json_value

if TYPE_CHECKING:
    from bottleneck.pipeline.stores import StoreState
    from bottleneck.store.maintenance.compact import Compaction
    from bottleneck.store.maintenance.prune import Pruning

_STORES = click.argument("names", nargs=-1, metavar="[STORE]…")
_MIB = 1 << 20
_NOT_REMOVED = "files could not be removed"


@click.group(short_help="Look at stores, verify and repair them, keep house.")
def store() -> None:
    """Look at the feature stores of a cache,
    verify and repair them, and keep house.

    STORE is the name of a store's folder, a part of it that no other has, or the 12 hex digits of its recipe.
    """


@store.command("ls", short_help="All stores: base, cut, rows, size, damage.")
@SESSION
def ls(output: Output, **options: Any) -> None:
    """All stores of the cache:
    base, cut, recipe, rows, shape, type, shards, size, damaged shards, last change.
    """
    from bottleneck.cli.tables import stores as store_tables
    from bottleneck.pipeline import stores

    found = stores.list_stores(**output.session(options))
    output.show(
        lambda: {"stores": json_value(found)},
        lambda: store_tables.states_table(found),
    )


@store.command("show", short_help="One store in detail.")
@click.argument("name", metavar="STORE")
@SESSION
def show_one(name: str, output: Output, **options: Any) -> None:
    """One store in detail: its recipe in words,
    how it was asked for, who computed what, what was rejected.
    """
    from bottleneck.cli.tables import stores as store_tables
    from bottleneck.pipeline import stores

    found = stores.show_store(name, **output.session(options))
    output.show(
        lambda: found.to_json(details=True),
        lambda: store_tables.state_table(found),
    )


@store.command(short_help="Every byte against what was committed.")
@_STORES
@click.option("--digest", is_flag=True, help="Print only the sha256 that stands for the set of shard files.")
@click.option(
    "--repair", metavar="SOURCE", type=click.Path(readable=False), help="Compute what is lost again."
)
@click.option(
    "--sample", type=click.IntRange(0), default=0, metavar="N", help="Compute N rows again, compare."
)
@click.option(
    "--source", metavar="SOURCE", type=click.Path(readable=False), help="Where --sample finds images."
)
@click.option("--seed", type=int, metavar="N", help="Of the rows that --sample draws.  [default: chance]")
@TRUST
@ALLOW_HOST
@SESSION
def verify(names: tuple[str, ...], digest: bool, output: Output, **options: Any) -> None:
    """Hash every record, shard and list of block hashes,
    and look at the structure of each file.

    Ends with status 1 when something is damaged. --repair computes what is lost again from a source of images, and
    only that; --digest gives the same line for the same set of shard files, however they came to be.
    """
    from bottleneck.cli.tables import stores as store_tables
    from bottleneck.pipeline import stores

    found = stores.verify(names, **output.session(options))
    if digest and not output.as_json:
        with writing():
            for one in found:
                if one.verdict is not None:
                    click.echo(f"{one.verdict.digest}  {one.folder.name}")
    else:
        output.show(
            lambda: {"sound": all(one.sound for one in found), "stores": json_value(found)},
            lambda: store_tables.checked_table(found),
        )
    _end(
        output,
        [
            ("not sound" if one.verdict and not one.verdict.damaged else "damaged", one.folder.name)
            for one in found
            if not one.sound
        ],
        digest,
    )


@store.command(short_help="Many small shards into few.")
@_STORES
@click.option(
    "--target",
    type=click.IntRange(1, 4096),
    default=256,
    show_default=True,
    metavar="MIB",
    help="Size of a shard; so much memory is needed three times.",
)
@SESSION
def compact(names: tuple[str, ...], target: int, output: Output, **options: Any) -> None:
    """Write many small shards as few large ones.
    Killed at any moment, the store serves the same rows.
    """
    from bottleneck.cli.tables import stores as store_tables
    from bottleneck.pipeline import stores

    found = stores.compact(names, target=target * _MIB, **output.session(options))
    output.show(
        lambda: {"stores": [_outcome(one) for one in found]},
        lambda: store_tables.compaction_table(found),
    )
    done = [one for one in found if not isinstance(one, stores.StoreState)]
    _end(
        output,
        [("damaged", one.folder.name) for one in done if one.damaged]
        + [(_NOT_REMOVED, one.folder.name) for one in done if one.failed],
    )


@store.command(short_help="Remove what no source needs any more.")
@_STORES
@click.option(
    "--keep",
    multiple=True,
    metavar="SOURCE",
    type=click.Path(readable=False),
    help="What these images need stays; repeatable.",
)
@click.option("--yes", is_flag=True, help="Do it; without, only say what would go.")
@ALLOW_HOST
@SESSION
def prune(names: tuple[str, ...], keep: tuple[str, ...], yes: bool, output: Output, **options: Any) -> None:
    """Remove rows that none of the --keep sources refers to,
    and files that nothing refers to.

    Without --keep only the latter go. Without --yes nothing is removed.
    """
    from bottleneck.cli.tables import stores as store_tables
    from bottleneck.pipeline import stores

    found = stores.prune(names, keep=keep, yes=yes, **output.session(options))
    done = [one for one in found if not isinstance(one, stores.StoreState)]
    output.show(
        lambda: {"done": any(one.done for one in done), "stores": [_outcome(one) for one in found]},
        lambda: store_tables.pruning_table(found),
    )
    _end(output, [(_NOT_REMOVED, one.folder.name) for one in done if one.failed])


@store.command(short_help="Stores to another cache, on a disk or behind a URL.")
@click.argument("names", nargs=-1, metavar="[STORE|URL]…")
@click.argument("target", metavar="DEST")
@SESSION
def copy(names: tuple[str, ...], target: str, output: Output, **options: Any) -> None:
    """Copy stores, all of the cache where none is named,
    to the cache at DEST: a folder, or a URL (s3://bucket/cache).

    Every byte is checked on its way. Killed at any moment, what has arrived is served from there, and the same command
    goes on. A URL instead of STORE copies the store, or the whole cache, that lies there.
    """
    from bottleneck.cli.tables import stores as store_tables
    from bottleneck.pipeline import stores

    found = stores.copy(names, target, **output.session(options))
    output.show(
        lambda: {"stores": json_value(found)},
        lambda: store_tables.copied_table(found),
    )
    _end(output, [("damaged", one.source) for one in found if one.damaged])


def _outcome(one: Compaction | Pruning | StoreState) -> dict[str, Any]:
    """Describe what became of a store, or why it was passed over."""
    from bottleneck.pipeline.stores import StoreState

    return (
        {"store": one.folder.name, "problem": one.problem} if isinstance(one, StoreState) else one.to_json()
    )


def _end(output: Output, words: Sequence[tuple[str, str]], digest: bool = False) -> None:
    """End with status 1 where there are words, each of a store."""
    from bottleneck.system.durable import shown

    if not words:
        return
    if not output.as_json and (output.quiet or digest):
        for word, name in words:
            click.echo(f"error: {word}: {shown(name)}", err=True)
        click.echo(
            f"the same command without {'--quiet' if output.quiet else '--digest'} says what", err=True
        )
    raise SystemExit(1)
