"""The command line: the only place that prints."""

from __future__ import annotations

import io
import json
import os
import sys
import traceback
import warnings
from typing import NoReturn

import click

from bottleneck.cli.commands import app
from bottleneck.cli.finetune import finetune
from bottleneck.cli.output import note, say
from bottleneck.cli.store import store
from bottleneck.cli.streams import Terminated, command_streams, drop
from bottleneck.errors import BottleneckError
from bottleneck.system import onednn
from bottleneck.system.addresses import redact_text
from bottleneck.system.disk_errors import refusal

__all__ = ["app", "main"]

app.add_command(store)
app.add_command(finetune)


def _warn_of_namesake() -> None:
    """PyPI's `Bottleneck` installs a package of the same name over this one."""
    import importlib.metadata

    try:
        importlib.metadata.version("Bottleneck")
    except importlib.metadata.PackageNotFoundError:
        return
    note(
        "the distribution 'Bottleneck' (pandas' accelerator) is installed in this environment too; both are "
        "imported as `bottleneck`, so one of them is broken. Keep them in separate environments: "
        "pip uninstall Bottleneck, then pip install --force-reinstall --no-deps bottleneck-features"
    )


def main(arguments: list[str] | None = None) -> None:
    """Run one command and end with its exit status.

    0: done, 1: failed, 2: wrong usage, 3: too many bad images, 130 and 143: interrupted.
    """
    # TensorFlow logs what it finds on the machine, and every missing GPU driver as an error.
    for name, value in {"TF_CPP_MIN_LOG_LEVEL": "3", **onednn.requested_environment()}.items():
        os.environ.setdefault(name, value)
    # pyarrow imports pandas where there is one, and pandas wonders about our name; here that is no news.
    warnings.filterwarnings("ignore", "Pandas requires version .* of 'bottleneck'", UserWarning)
    arguments = sys.argv[1:] if arguments is None else arguments
    with command_streams():
        _warn_of_namesake()
        _run(arguments, "--json" in arguments)


def _run(arguments: list[str], as_json: bool) -> None:
    try:
        app.main(arguments, prog_name="bottleneck", standalone_mode=False)
    except BottleneckError as error:
        _fail(str(error), error.exit_status, type(error).__name__, as_json)
    except click.ClickException as error:
        if as_json:
            _fail(error.format_message(), error.exit_code, "UsageError", True)
        said = io.StringIO()
        error.show(said)
        click.echo(redact_text(said.getvalue()), err=True, nl=False)
        raise SystemExit(error.exit_code) from error
    except (click.Abort, KeyboardInterrupt):
        _fail(f"interrupted; {_KEPT}", 130, "Interrupted", as_json)
    except Terminated as error:
        _fail(f"terminated; {_KEPT}", int(str(error.code)), "Terminated", as_json)
    except BrokenPipeError:
        # Whoever read our output has seen enough.
        drop(sys.stdout)
        raise SystemExit(1) from None
    except OSError as error:
        _fail(refusal(error), 1, type(error).__name__, as_json)
    except Exception as error:
        # A fault of ours: the traceback is for its report, the object for the program that waits for one.
        if as_json:
            _say_error(str(error), type(error).__name__, 1)
        # Python's own would show a URL that stands in the message as it was given.
        click.echo(redact_text(traceback.format_exc()), err=True, nl=False)
        raise SystemExit(1) from None


_KEPT = "finished shards are kept, and the same command goes on from there"


def _fail(text: str, status: int, kind: str, as_json: bool) -> NoReturn:
    from bottleneck.system.durable import shown

    if as_json:
        _say_error(text, kind, status)
    # Line breaks of our own messages stay; what comes from file names was escaped where the message was made.
    safe = "\n".join(shown(line) for line in redact_text(text).split("\n"))
    click.echo(f"error: {safe}", err=True)
    raise SystemExit(status)


def _say_error(text: str, kind: str, status: int) -> None:
    say(json.dumps({"error": redact_text(text), "kind": kind, "exit_status": status}))
