"""Numbers and tables as people read them."""

import json
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from zsic.core.terminal import is_hidden, printable

out = Console(highlight=False, soft_wrap=True)
"""Results."""
err = Console(stderr=True, highlight=False, soft_wrap=True)
"""Progress and remarks; never what a pipe wants."""


def count(n: float) -> str:
    """12,345."""
    return f"{n:,.0f}"


def size(n_bytes: float) -> str:
    """1.5 GB, in powers of 1,000."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if n_bytes < 1000 or unit == "TB":
            return f"{n_bytes:.0f} {unit}" if unit == "B" or n_bytes >= 100 else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    raise AssertionError


def duration(seconds: float) -> str:
    """42 s, 3 min 20 s, 5 h 12 min, 3 d 4 h."""
    if seconds < 99.5:
        return f"{seconds:.0f} s" if seconds >= 9.95 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"


def show_table(header: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[int] = ()) -> None:
    """Print a plain table; cells may come from data, so control characters are made visible."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for position, name in enumerate(header):
        table.add_column(name, justify="right" if position in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    # Where nobody looks, nothing is gained by fitting a terminal.
    Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 200).print(table)


def show_json(value: object) -> None:
    """Print JSON.  It escapes few of the characters that a terminal obeys; here all are, as JSON spells them."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    out.print("\n".join("".join(map(_escape, line)) for line in text.split("\n")), markup=False)


def _escape(char: str) -> str:
    return json.dumps(char)[1:-1] if is_hidden(char) else char


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}"
    return printable(str(value))
