"""States and patches for a person at a terminal: what a JSON Patch does as a tree, and two states side by side."""

import difflib
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from ops.output import cell, colour_wanted, print_rich

_VALUE_CHARACTERS_MAX: Final = 200
_COLUMN_MIN: Final = 30


def print_tree(old: Any, patch: Sequence[dict[str, Any]]) -> None:
    """One line per change, below the members that lead to it: + came, - went, ~ is another."""
    from rich.text import Text
    from rich.tree import Tree

    tree = Tree(Text("changed" if patch else "nothing changed"))
    branches: dict[tuple[str, ...], Tree] = {(): tree}
    for change in patch:
        parts = tuple(part.replace("~1", "/").replace("~0", "~") for part in str(change["path"]).split("/")[1:])
        for depth in range(1, len(parts)):
            if parts[:depth] not in branches:
                branches[parts[:depth]] = branches[parts[: depth - 1]].add(Text(cell(parts[depth - 1])))
        branches[parts[:-1]].add(_line(old, parts, change))
    print_rich(tree)


def _line(old: Any, parts: tuple[str, ...], change: dict[str, Any]) -> Any:
    from rich.text import Text

    name, before = cell(parts[-1]) if parts else "(all)", _shown(_at(old, parts))
    match change["op"]:
        case "add":
            return Text(f"+ {name}: {_shown(change['value'])}", style="green")
        case "remove":
            return Text(f"- {name}: {before}", style="red")
        case "replace":
            return Text(f"~ {name}: {before} -> {_shown(change['value'])}", style="yellow")
        case other:
            return Text(f"{other} {name} (from {cell(change.get('from'))})", style="yellow")


def _at(document: Any, parts: tuple[str, ...]) -> Any:
    from runtime.past.conditions import MISSING, at_pointer

    found = at_pointer(document, parts)
    return None if found is MISSING else found


def _shown(value: Any) -> str:
    text = cell(msgspec.json.encode(value).decode())
    return text if len(text) <= _VALUE_CHARACTERS_MAX else text[: _VALUE_CHARACTERS_MAX - 1] + "…"


def lines_of(state: Any) -> list[str]:
    """A state as the lines that are compared: keys in order, so that only values differ."""
    return msgspec.json.format(msgspec.json.encode(state, order="deterministic"), indent=2).decode().splitlines()


def print_sides(old: Any, new: Any, titles: tuple[str, str]) -> None:
    """Both states, line beside line; equal lines far from a difference are left out."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, overflow="fold", min_width=_COLUMN_MIN, ratio=1)
    left, right = lines_of(old), lines_of(new)
    for kind, a, b, c, d in difflib.SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        if kind == "equal":
            shown = range(b - a) if b - a <= 6 else [0, 1, 2, -1, b - a - 3, b - a - 2, b - a - 1]
            for index in shown:
                text = f"  … {b - a - 6} equal lines" if index < 0 else cell(left[a + index])
                table.add_row(text, text if index >= 0 else "", style="dim" if index < 0 else None)
            continue
        for index in range(max(b - a, d - c)):
            table.add_row(
                Text(cell(left[a + index]), style="red") if a + index < b else "",
                Text(cell(right[c + index]), style="green") if c + index < d else "",
            )
    print_rich(table)


def print_state(state: Any) -> None:
    """A state as indented JSON."""
    import sys

    for text in lines_of(state):
        sys.stdout.write(cell(text) + "\n")
    sys.stdout.flush()


def bold(text: str) -> str:
    """`text` in bold where colour is wanted."""
    import sys

    return f"\x1b[1m{text}\x1b[0m" if colour_wanted(sys.stdout) else text
