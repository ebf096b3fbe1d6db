"""The index by graphs: `index_numpy` with a graph for every `VECTORS_PER_GRAPH` vectors, made in the background and kept in a file.

Several graphs of a fixed size and not one that grows: nothing that a search reads is ever changed or copied, a file is written once, and
the piece of work that holds the interpreter (hnswlib saves and loads under the GIL) stays short. A search asks each graph and the tail.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import structlog

from events.errors import CuebookError
from projections.vectors import graph_file
from projections.vectors.graph_file import DamagedGraphError, GraphFile, Header, UnusableGraphError
from projections.vectors.graphs_hnswlib import LINKS, LINKS_TRIED, SEED, HnswGraph, library
from projections.vectors.index import VECTORS_PER_GRAPH, Background, IndexStatistics, Space
from projections.vectors.index_numpy import Block, BlockIndex, Floats, matrix_of

_PARAMETERS: Final = {"links": LINKS, "links_tried": LINKS_TRIED, "seed": SEED}
_LIVE_SHARE_MIN: Final = 0.5
"""Of the rows of a file: with fewer its graph is not worth its place."""
log = structlog.get_logger("cuebook.vectors")


class GraphedIndex(BlockIndex):
    """Adapter of `VectorIndex`. Made empty; `restore` brings rows and files together."""

    def __init__(self, space: Space, *, folder: Path | None, background: Background, vectors_per_graph: int = VECTORS_PER_GRAPH) -> None:
        super().__init__(space.dimensions)
        self._space = space
        self._folder = folder
        self._background = background
        self._per_graph = vectors_per_graph
        self._files: dict[Block, Path] = {}
        self._position = 0
        self._working = self._closed = self._deleted = False
        self._loaded = self._built = self._damaged = 0

    def restore(self, ids: Sequence[int], vectors: Sequence[bytes], position: int) -> None:
        """Hold these rows; once, before anything else. What the files do not hold, or hold otherwise than the rows, counts by the rows.

        Raises:
            EmbeddingError: a vector has other dimensions.
        """
        matrix = matrix_of(vectors, self.dimensions)
        self._position = position
        places = {each: place for place, each in enumerate(ids)}
        for path in graph_file.files_of(self._folder, self._space) if self._folder else ():
            try:
                held = self._from_file(path, places, vectors, matrix)
            except UnusableGraphError as error:
                self._damaged += isinstance(error, DamagedGraphError)
                path.unlink(missing_ok=True)
                log.warning("graph_file_dropped", file=path.name, space=self._space.name, reason=error.message)
                continue
            for each in held:
                del places[each]
        rest = list(places.values())
        with self._writing:
            self._append(np.asarray([ids[place] for place in rest], np.int64), matrix[rest])
            self.grown()

    def _from_file(self, path: Path, places: dict[int, int], vectors: Sequence[bytes], matrix: Floats) -> list[int]:
        """Take over the graph of one file; returns the ids that it holds."""
        found = graph_file.read(path)
        header = found.header
        if header.space != self._space or header.library != library() or header.parameters != _PARAMETERS:
            raise UnusableGraphError("it is of another model, library or space")
        if header.position > self._position:
            raise UnusableGraphError("it is of a later log than the rows", file=header.position, rows=self._position)
        alive = np.fromiter(
            (
                (place := places.get(each)) is not None and graph_file.digest(vectors[place]) == digest
                for each, digest in zip(found.ids, found.digests, strict=True)
            ),
            np.bool_,
            header.count,
        )
        slots = np.flatnonzero(alive)
        if len(slots) < _LIVE_SHARE_MIN * header.count or not len(slots):
            raise UnusableGraphError("most of its rows are gone")
        held = [found.ids[slot] for slot in slots]
        rows = np.zeros((header.count, self.dimensions), np.float32)
        rows[slots] = matrix[[places[each] for each in held]]
        try:
            graph = HnswGraph.load(found.graph, count=header.count, dimensions=self.dimensions)
        except (CuebookError, RuntimeError) as error:
            raise UnusableGraphError(f"hnswlib does not take it: {error}") from error
        block = Block(np.asarray(found.ids, np.int64), rows, alive, header.count, graph)
        with self._writing:
            self._files[block] = path
            self._moved(block, block)
            self._state = self._state._replace(graphed=(*self._state.graphed, block))
        self._loaded += 1
        return held

    def passed(self, position: int) -> None:
        self._position = position

    def statistics(self) -> IndexStatistics:
        graphed = self._state.graphed
        return IndexStatistics(
            backend="hnswlib",
            vectors=len(self._places),
            graphed=sum(block.count - block.dead for block in graphed),
            loaded=self._loaded,
            built=self._built,
            damaged=self._damaged,
        )

    def close(self) -> None:
        with self._writing:
            self._closed = True

    def delete_files(self) -> None:
        with self._writing:
            self._closed = self._deleted = True
        if self._folder is not None:
            for path in graph_file.files_of(self._folder, self._space):
                path.unlink(missing_ok=True)

    def grown(self) -> None:
        tail = self._state.tail
        if not self._working and not self._closed and tail.count - tail.dead >= self._per_graph:
            self._working = True
            self._background.submit(self._make_graphs)

    def ungraph(self, block: Block) -> None:
        super().ungraph(block)
        path = self._files.pop(block, None)
        if path is not None:
            # A rest of what was forgotten would stay in it.
            path.unlink(missing_ok=True)
        self.grown()

    # -- in the background --------------------------------------------------------------------------------------------------------------

    def _stopped(self) -> bool:
        return self._closed or self._background.closing

    def _make_graphs(self) -> None:
        try:
            while self._make_graph():
                pass
        except Exception as error:
            # Nobody waits for it; the vectors are compared, which is slower.
            log.error("graph_not_made", space=self._space.name, exc_info=error)
        finally:
            self._working = False

    def _make_graph(self) -> bool:
        """Whether there was enough for one."""
        with self._writing:
            tail = self._state.tail
            slots = tail.live_slots()[: self._per_graph]
            if len(slots) < self._per_graph or self._stopped():
                return False
            part = tail.taken(slots)
            position = self._position
        graph = HnswGraph.build(part.matrix, self._stopped)
        if graph is None:
            return False
        with self._writing:
            self._exchange(part, graph)
        self._built += 1
        self._save(part, graph, position)
        return True

    def _exchange(self, block: Block, graph: HnswGraph) -> None:
        """Put `block` with its graph where its rows are in the tail. Those that were removed or replaced meanwhile are dead in it."""
        state = self._state
        rest = state.tail.alive[: state.tail.count].copy()
        for row, each in enumerate(block.ids.tolist()):
            now, slot = self._places.get(each, (block, -1))
            if now is state.tail and np.array_equal(now.matrix[slot], block.matrix[row]):
                self._places[each] = (block, row)
                rest[slot] = False
            else:
                block.kill(row)
        block.graph = graph
        self._put_tail((*state.graphed, block), state.tail, np.flatnonzero(rest))

    def _save(self, block: Block, graph: HnswGraph, position: int) -> None:
        if self._folder is None:
            return
        header = Header(space=self._space, library=library(), parameters=_PARAMETERS, position=position, count=block.count)
        digests = [graph_file.digest(row.astype("<f4").tobytes()) for row in block.matrix]
        content = GraphFile(header=header, ids=block.ids.tolist(), digests=digests, graph=graph.dump(self._folder))
        try:
            path = graph_file.write(self._folder, content)
        except OSError as error:
            # Made again at the next start, from the rows.
            log.warning("graph_not_saved", space=self._space.name, reason=str(error))
            return
        with self._writing:
            if self._deleted or block not in self._state.graphed:
                path.unlink(missing_ok=True)
            else:
                self._files[block] = path
