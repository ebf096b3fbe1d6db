"""What verbs print: a table on a terminal, JSON Lines when piped or with --json; progress on stderr.

stdout carries data only, so that a pipe never has to filter. rich is imported when a table is drawn and not before.
"""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TextIO

import msgspec

Row = Mapping[str, object]


def wants_json(asked: bool) -> bool:
    """Return whether rows leave as JSON Lines: asked for by --json, or stdout is not a terminal."""
    return asked or not sys.stdout.isatty()


def colour_wanted(stream: TextIO) -> bool:
    """Return whether colour may be used: a terminal, and NO_COLOR unset or empty (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def print_rows(rows: Iterable[Row], *, json: bool, columns: Sequence[str] = (), title: str = "") -> None:
    """Print rows that share their fields.

    Args:
        rows: consumed one at a time in JSON Lines, so an endless iterator streams.
        json: the verb's --json.
        columns: the fields shown in a table and their order; empty = all of the first row. JSON always has every field.
        title: heading of the table only.
    """
    if wants_json(json):
        for row in rows:
            print_json(row)
        return
    from rich.table import Table

    shown = list(rows)
    names = list(columns) or list(shown[0] if shown else ())
    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(name.replace("_", " "), overflow="fold")
    for row in shown:
        table.add_row(*(cell(row.get(name)) for name in names))
    print_rich(table)


def print_record(record: Row, *, json: bool) -> None:
    """Print one record: field and value per line on a terminal, one JSON object otherwise."""
    if wants_json(json):
        print_json(record)
        return
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in record.items():
        table.add_row(name.replace("_", " "), cell(value))
    print_rich(table)


def print_json(value: object) -> None:
    """Write one JSON document on one line of stdout and flush it, so that a follower sees it at once."""
    sys.stdout.write(msgspec.json.encode(value, enc_hook=str).decode() + "\n")
    sys.stdout.flush()


def print_rich(renderable: object) -> None:
    """Print something rich can draw on stdout, without markup, so that data never turns into formatting."""
    from rich.console import Console

    Console(no_color=not colour_wanted(sys.stdout), markup=False, highlight=False, soft_wrap=False).print(renderable)


def cell(value: object) -> str:
    """Return the text of a value in a table; None is a dash, structure is compact JSON, controls are escaped."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = str(value) if isinstance(value, str | int | float | os.PathLike) else _compact(value)
    # A payload may hold escape sequences; printed raw they would steer the reader's terminal.
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def _compact(value: object) -> str:
    return msgspec.json.encode(value, enc_hook=str).decode()


def progress(text: str) -> None:
    """Write one progress line on stderr; stdout stays data."""
    print(text, file=sys.stderr, flush=True)
