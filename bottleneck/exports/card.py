"""Write the model card, `card.json` for programs and `card.md` for people."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from importlib import resources
from itertools import groupby
from typing import Any, Literal

from bottleneck.exports.manifest import Delivered, Refusal
from bottleneck.schema import (
    NAMED_BY_SOURCE,
    Certificate,
    FitFacts,
    Frozen,
    HeadSpec,
    ScoreFacts,
    SplitPolicy,
    StoreSpec,
    format_size,
)
from bottleneck.schema.tuning import Tuned
from bottleneck.system.durable import shown


class RejectedGroup(Frozen):
    """Images without features, for one reason, with a few paths."""

    stage: str
    reason: str
    images: int
    paths: tuple[str, ...]


class DataFacts(Frozen):
    """The data that the run learnt from.

    Attributes
    ----------
    fingerprint : str
        sha256 over contents, labels, groups and splits of the run's table, whatever the files are called.
    images : int
    classes : mapping of str to mapping of str to int
        Images of each class in each split.
    rejected : tuple of RejectedGroup or None
        None where the source could no longer be read.
    """

    fingerprint: str
    images: int
    classes: Mapping[str, Mapping[str, int]]
    rejected: tuple[RejectedGroup, ...] | None


class Card(Frozen):
    """The card of one export: `card.json`.

    `compared` is how many images of the run the forms were compared on, and `unseen` how many of these the head did
    not learn from: accuracies beside the forms are of the unseen ones, if any. `metrics` are by split, as
    `bottleneck evaluate --json` gives them; `asked` is the request for the base; `tuned` says how it was fine-tuned,
    if it was. Since format 2: `fit` is how the head was fitted, `split` how its images were divided.
    """

    format: Literal[1, 2] = 2
    name: str
    created: str
    exported: str
    data: DataFacts
    base: StoreSpec
    asked: Mapping[str, Any]
    head: HeadSpec
    fit: FitFacts | None = None
    parameters: Mapping[str, int]
    tuned: Tuned | None = None
    split: SplitPolicy | None = None
    metrics: Mapping[str, Mapping[str, Any]]
    folds: tuple[Mapping[str, Any], ...]
    certificate: Certificate
    compared: int
    unseen: int
    artefacts: tuple[Delivered, ...]
    refused: tuple[Refusal, ...]
    score: ScoreFacts | None = None
    versions: Mapping[str, str]


class Plain(str):
    """Text that is Markdown already."""

    __slots__ = ()


_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~&!@$])")


def escaped(text: str) -> Plain:
    r"""Escape text for Markdown, also inside a table.

    Examples
    --------
    >>> print(escaped("[a|b](http://x) <i> *c*\n# d"))
    \[a\|b\](http:\//x) \<i\> \*c\*\\n\# d
    """
    # GitHub makes links of bare names of web sites too.
    return Plain(_SPECIAL.sub(r"\\\1", shown(text)).replace("www.", "www\\.").replace("://", ":\\//"))


def excerpt(text: str, function: str) -> str:
    """Cut one function out of a file, with the lines it needs.

    Examples
    --------
    >>> print(excerpt("import os\\nimport sys\\nA = 1\\n\\ndef f():\\n    return sys.path, A\\n", "f"))
    import sys
    <BLANKLINE>
    A = 1
    <BLANKLINE>
    <BLANKLINE>
    def f():
        return sys.path, A
    """
    statements = {name: node for node in ast.parse(text).body for name in _binds(node)}
    wanted, open_names = {}, [function]
    while open_names:
        name = open_names.pop()
        node = statements.get(name)
        if node is None or name in wanted:
            continue
        wanted[name] = node
        open_names += [inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)]
    lines = text.splitlines()
    cut, end = "", 0
    for node in sorted({id(node): node for node in wanted.values()}.values(), key=lambda node: node.lineno):
        between = lines[end : node.lineno - 1]
        blanks = max((len(list(run)) for line, run in groupby(between) if not line), default=0)
        cut += ("\n" + "\n" * blanks if cut else "") + "\n".join(lines[node.lineno - 1 : node.end_lineno])
        end = node.end_lineno or end
    return cut


def _binds(node: ast.stmt) -> Iterable[str]:
    match node:
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            return [(alias.asname or alias.name).partition(".")[0] for alias in names]
        case ast.FunctionDef(name=name):
            return [name]
        case ast.Assign(targets=targets):
            return [target.id for target in targets if isinstance(target, ast.Name)]
    return []


def render(card: Card, readers: Mapping[str, tuple[str, str]]) -> str:
    """Render the card in Markdown.

    Parameters
    ----------
    card : Card
    readers : mapping of str to tuple of str
        For each kind: the name and the text of its reader, which the card shows.

    Returns
    -------
    str
        Text of users (names of classes, runs, files) is escaped.
    """
    import jinja2

    folder = resources.files(__package__) / "templates"

    def text_of(name: str) -> str | None:
        place = folder / name
        return place.read_text("utf-8") if place.is_file() else None

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(text_of),
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: value if isinstance(value, (Plain, int, float)) else escaped(str(value)),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # this is Markdown, and `finalize` escapes it as such
    )
    environment.filters.update(
        plain=Plain,
        size=lambda count: Plain(format_size(count)),
        fixed=lambda value, digits: Plain(f"{value:.{digits}f}"),
        tiny=lambda value: Plain(f"{value:.1e}"),
        thousands=lambda value: Plain(f"{value:,}"),
        excerpt=lambda text, function: Plain(excerpt(text, function)),
    )
    template = environment.get_template("card.md.jinja2")
    # The split that says most about new images.
    held_out = next((name for name in ("test", "validation") if name in card.metrics), None)
    return template.render(card=card, readers=readers, held_out=held_out, named_by_source=NAMED_BY_SOURCE)
