"""How a command speaks: progress, remarks, a table or a JSON object."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from bottleneck.cli.streams import writing


def note(text: str) -> None:
    """Print a remark on standard error."""
    click.echo(f"note: {text}", err=True)


def say(text: str) -> None:
    """Print a line on standard output."""
    # What happens next is not worth a run: standard output may be full, or nobody may listen.
    with contextlib.suppress(OSError):
        click.echo(text)


@dataclass(frozen=True)
class Output:
    """What a command shows: ``--json`` and ``--quiet``."""

    as_json: bool
    quiet: bool

    def session(self, options: dict[str, Any]) -> dict[str, Any]:
        """Add the progress that a person should see to `options`."""
        from bottleneck.system.progress import Silent, Terminal

        return {**options, "progress": Silent() if self.quiet else Terminal()}

    def show(self, document: Callable[[], Any], table: Callable[[], Any]) -> None:
        """Show the result: one JSON object, or a table for a person."""
        if self.as_json:
            with writing():
                click.echo(json.dumps(document(), allow_nan=False))
        elif not self.quiet:
            from rich.console import Console

            # A file or a pipe has no right edge; lines that people copy (paths, commands) run on at any width.
            console = Console(highlight=False)
            if not console.is_terminal and "COLUMNS" not in os.environ:
                console.width = 160
            with writing():
                console.print(table(), crop=False)
