"""Parts of the tables: columns, facts, plain text, sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bottleneck.system.durable import shown

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table


def columns(*names: str, title: str | None = None) -> Table:
    """Make a table; columns whose name begins with ``>`` align right."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
    for name in names:
        table.add_column(
            name.lstrip(">"), justify="right" if name.startswith(">") else "left", overflow="fold"
        )
    return table


def facts_list(pairs: list[tuple[str, str]], title: str | None = None) -> RenderableType:
    """List names and values, one line each, for people to copy."""
    from rich.text import Text

    text = Text(no_wrap=True, overflow="ignore")
    if title:
        text.append(f"{shown(title)}\n", "bold")
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        text.append(f"\n {name:<{width}}", "dim")
        text.append(f"   {shown(value)}")
    return text.append("\n")


def plain_text(text: str) -> Any:
    """Show text as it is: rich would style square brackets."""
    from rich.text import Text

    return Text(text)


def extents(shape: tuple[int, ...]) -> str:
    """Format a shape.

    Examples
    --------
    >>> extents((7, 7, 512))
    '7 x 7 x 512'
    """
    return " x ".join(f"{extent:,}" for extent in shape)


def stacked(*parts: RenderableType) -> RenderableType:
    """Stack parts below one another."""
    from rich.console import Group

    return Group(*parts)


def duration(seconds: float) -> str:
    """Format a length of time.

    Examples
    --------
    >>> duration(12.3), duration(200), duration(9000)
    ('12 s', '3 min 20 s', '2 h 30 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"
