"""Performance: where code is hard to follow, and so hard to make fast."""

from functools import partial
from pathlib import Path

import msgspec

from actors.actor import command
from actors.event import Event
from actors.team.examiner import Analyser, Examined, Examiner, Kept
from actors.team.parts import Part, write_part
from actors.tools.complexity import ComplexBlock, complexity_version, file_complexity, hot_spots


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """A `ComplexBlock` without its path."""

    name: str
    line: int
    complexity: int


class KeptBlocks(Kept, frozen=True, kw_only=True):
    blocks: list[Block]


class PerformanceState(Examined):
    complexity: dict[str, KeptBlocks] = {}
    hot_spots: list[ComplexBlock] = []


class ComplexityMeasured(Event[PerformanceState], tag="performance.complexity_measured"):
    """The functions and classes of one file."""

    path: str
    digest: str
    blocks: list[Block]

    def apply(self, state: PerformanceState) -> None:
        state.complexity[self.path] = KeptBlocks(digest=self.digest, blocks=self.blocks)


class HotSpotsFound(Event[PerformanceState], tag="performance.hot_spots_found"):
    """The most complex functions of a review, worst first."""

    review: str
    blocks: int
    hot_spots: list[ComplexBlock]

    def apply(self, state: PerformanceState) -> None:
        state.hot_spots = list(self.hot_spots)


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """All blocks as a part, and the worst of them; None where there is no function at all."""

    part: Part
    blocks: int
    worst: ComplexBlock | None
    tools: dict[str, str]
    unavailable: list[str]


class _Blocks(msgspec.Struct, frozen=True, kw_only=True):
    part: Part
    blocks: int
    hot_spots: list[ComplexBlock]


def measure(root: str, path: str, sha256: str) -> list[Block]:
    """Step: the complexity of each function and class of one file."""
    blocks = file_complexity(Path(root), path, sha256=sha256)
    return [Block(name=block.name, line=block.line, complexity=block.complexity) for block in blocks]


class Performance(Examiner[PerformanceState], name="performance"):
    """Cyclomatic complexity per file; hot spots of the whole."""

    analysers = (
        Analyser(
            name="complexity",
            version=complexity_version,
            examine=measure,
            event=lambda path, digest, result: ComplexityMeasured(path=path, digest=digest, blocks=result),
        ),
    )

    @command
    async def conclude(self, review: str, parts: str) -> Measurement:
        """Find the hot spots among the functions of all files."""
        self.show("ranking functions", 0, 0)
        found = await self.step("hot spots", partial(rank, self.state.complexity), parts)
        self.emit(HotSpotsFound(review=review, blocks=found.blocks, hot_spots=found.hot_spots))
        return Measurement(
            part=found.part, blocks=found.blocks, worst=found.hot_spots[0] if found.hot_spots else None,
            tools=self.state.rules, unavailable=self.unavailable(),
        )  # fmt: skip


def rank(kept: dict[str, KeptBlocks], parts: str) -> _Blocks:
    """Step: the blocks of all files, into a part."""
    blocks = [
        ComplexBlock(path=path, name=block.name, line=block.line, complexity=block.complexity)
        for path in sorted(kept)
        for block in kept[path].blocks
    ]
    return _Blocks(part=write_part(parts, "complexity", blocks), blocks=len(blocks), hot_spots=hot_spots(blocks))
