"""No module of ours imports itself by a way round, late imports inside functions included: such a circle says that two modules are one, or
that something stands in the wrong one of them. Read off the syntax trees by the tool that examines other code bases."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pytest

from actors.tools.graph import strongly_connected
from actors.tools.imports import FileImports, ImportEdge, file_imports, import_graph
from tests.test_architecture import ARROWS, ROOT, modules

KNOTS = {
    "actors.turn": "the turn and what a handler sees of it: one engine in several files",
    "events.store": "the port of the log names records that stand beside it",
    "runtime.cell": "the cell, its shard, and what they do: one machine in several files",
}
"""Circles of annotations only (``if TYPE_CHECKING``), each by a member: nothing of them is imported when a program runs."""


def cycles(files: Sequence[FileImports], counts: Callable[[ImportEdge], bool]) -> list[list[str]]:
    graph = import_graph(files)
    targets: dict[str, set[str]] = {module.name: set() for module in graph.modules}
    for edge in graph.imports:
        if counts(edge):
            targets[edge.source].add(edge.to)
    components = strongly_connected(list(targets), {name: sorted(found) for name, found in targets.items()})
    return [component for component in components if len(component) > 1]


def runs(edge: ImportEdge) -> bool:
    return edge.scope != "typing"


@cache
def ours() -> tuple[FileImports, ...]:
    return tuple(file_imports(ROOT, each.path.as_posix()) for each in modules(*ARROWS))


def test_no_modules_import_each_other() -> None:
    assert cycles(ours(), runs) == []


def test_modules_that_name_each_other_in_annotations_are_the_known_ones() -> None:
    found = cycles(ours(), lambda _: True)
    assert [cycle for cycle in found if not KNOTS.keys() & cycle] == []
    assert [knot for knot in KNOTS if not any(knot in cycle for cycle in found)] == [], "untied: take it out of the list"


@pytest.mark.parametrize(
    ("back", "runs_round", "any_round"),
    [
        ("import a", True, True),
        ("def f():\n    from a import x", True, True),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from a import x", False, True),
        ("import c", False, False),
    ],
    ids=["at its top", "in a function", "for an annotation", "not at all"],
)
def test_a_circle_is_found(tmp_path: Path, back: str, runs_round: bool, any_round: bool) -> None:
    for name, text in {"a": "import b", "b": back, "c": ""}.items():
        (tmp_path / f"{name}.py").write_text(text)
    files = [file_imports(tmp_path, f"{name}.py") for name in "abc"]
    assert bool(cycles(files, runs)) is runs_round
    assert bool(cycles(files, lambda _: True)) is any_round
