"""What the tables for a person are put together from: columns, named values, plain text, sizes. Prints nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bottleneck.system.durable import shown

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table


def columns(*names: str, title: str | None = None) -> Table:
    """Columns whose name begins with ``>`` are numbers, aligned right."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
    for name in names:
        table.add_column(
            name.lstrip(">"), justify="right" if name.startswith(">") else "left", overflow="fold"
        )
    return table


def facts_list(pairs: list[tuple[str, str]], title: str | None = None) -> RenderableType:
    """Names and values, one line each at any width: paths and commands are there to be copied."""
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
    """Text as it is: rich would read square brackets in file names as styles."""
    from rich.text import Text

    return Text(text)


def extents(shape: tuple[int, ...]) -> str:
    """A shape for a person.

    Examples
    --------
    >>> extents((7, 7, 512))
    '7 x 7 x 512'
    """
    return " x ".join(f"{extent:,}" for extent in shape)


def stacked(*parts: RenderableType) -> RenderableType:
    """Parts below one another."""
    from rich.console import Group

    return Group(*parts)


def size(count: float) -> str:
    """Bytes for a person.

    Examples
    --------
    >>> size(532), size(5_300_000)
    ('532 B', '5.3 MB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration(seconds: float) -> str:
    """A length of time for a person.

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
