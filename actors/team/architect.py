"""Architect: who imports whom, in layers and cycles."""

from functools import partial
from pathlib import Path

import msgspec

from actors.actor import command
from actors.event import Event
from actors.team.examiner import Analyser, Examined, Examiner, Kept
from actors.team.parts import Part, write_part
from actors.tools.imports import IMPORTS_VERSION, FileImports, ImportGraph, ImportStatement, file_imports, import_graph


class KeptImports(Kept, frozen=True, kw_only=True):
    statements: list[ImportStatement]


class ArchitectState(Examined):
    imports: dict[str, KeptImports] = {}
    modules: int = 0
    edges: int = 0
    cycles: int = 0


class ImportsRead(Event[ArchitectState], tag="architect.imports_read"):
    """The import statements of one file."""

    path: str
    digest: str
    statements: list[ImportStatement]

    def apply(self, state: ArchitectState) -> None:
        state.imports[self.path] = KeptImports(digest=self.digest, statements=self.statements)


class GraphDrawn(Event[ArchitectState], tag="architect.graph_drawn"):
    """The import graph of a review."""

    review: str
    modules: int
    edges: int
    cycles: int
    sha256: str

    def apply(self, state: ArchitectState) -> None:
        state.modules = self.modules
        state.edges = self.edges
        state.cycles = self.cycles


class Drawing(msgspec.Struct, frozen=True, kw_only=True):
    """The import graph as a part, and what of it goes onto the last screen."""

    part: Part
    modules: int
    edges: int
    cycles: int
    first_cycle: list[str]
    tools: dict[str, str]
    unavailable: list[str]


class _Graph(msgspec.Struct, frozen=True, kw_only=True):
    part: Part
    modules: int
    edges: int
    cycles: int
    first_cycle: list[str]


def read_imports(root: str, path: str, sha256: str) -> list[ImportStatement]:
    """Step: the import statements of one file."""
    return file_imports(Path(root), path, sha256=sha256).statements


class Architect(Examiner[ArchitectState], name="architect"):
    """Import facts per file; graph, layers and cycles of the whole."""

    analysers = (
        Analyser(
            name="imports",
            version=lambda: IMPORTS_VERSION,
            examine=read_imports,
            event=lambda path, digest, result: ImportsRead(path=path, digest=digest, statements=result),
        ),
    )

    @command
    async def conclude(self, review: str, parts: str, package_prefix: str) -> Drawing:
        """Put the facts of all files together."""
        self.show("drawing the import graph", 0, 0)
        graph = await self.step("graph", partial(draw, self.state.imports, package_prefix), parts)
        self.emit(GraphDrawn(review=review, modules=graph.modules, edges=graph.edges, cycles=graph.cycles, sha256=graph.part.sha256))
        return Drawing(
            part=graph.part, modules=graph.modules, edges=graph.edges, cycles=graph.cycles, first_cycle=graph.first_cycle,
            tools=self.state.rules, unavailable=self.unavailable(),
        )  # fmt: skip


def draw(kept: dict[str, KeptImports], package_prefix: str, parts: str) -> _Graph:
    """Step: the graph of all files, into a part."""
    facts = [FileImports(path=path, statements=kept[path].statements) for path in sorted(kept)]
    graph: ImportGraph = import_graph(facts, package_prefix=package_prefix)
    return _Graph(
        part=write_part(parts, "graph", graph), modules=len(graph.modules), edges=len(graph.imports), cycles=len(graph.cycles),
        first_cycle=graph.cycles[0] if graph.cycles else [],
    )  # fmt: skip
