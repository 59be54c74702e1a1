"""How a command speaks: progress, remarks, a table or a JSON object."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from bottleneck.cli.streams import writing

if TYPE_CHECKING:
    from bottleneck.system.progress import Progress


def session(quiet: bool, options: dict[str, Any]) -> dict[str, Any]:
    """Add the progress that a person should see to `options`."""
    return {**options, "progress": progress_for(quiet)}


def progress_for(quiet: bool) -> Progress:
    """Choose bars on standard error, or none."""
    from bottleneck.system.progress import Silent, Terminal

    return Silent() if quiet else Terminal()


def note(text: str) -> None:
    """A remark on standard error."""
    click.echo(f"note: {text}", err=True)


def say(text: str) -> None:
    """A line on standard output."""
    # What happens next is not worth a run: standard output may be full, or nobody may listen.
    with contextlib.suppress(OSError):
        click.echo(text)


def show(as_json: bool, quiet: bool, document: Callable[[], Any], table: Callable[[], Any]) -> None:
    """Show the result: one JSON object, or a table for a person."""
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
