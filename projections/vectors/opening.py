"""Which adapter of a vector index serves here: the best of those whose libraries are installed. Each is imported only where it is used."""

from collections.abc import Sequence
from pathlib import Path

from events.embedding import check_vector
from events.errors import EmbeddingError
from projections.vectors.index import VECTORS_PER_GRAPH, Backend, Background, Space, VectorIndex


def backend() -> Backend:
    """The best that is installed here."""
    try:
        import projections.vectors.index_numpy
    except ImportError:
        return "plain"
    try:
        import projections.vectors.graphs_hnswlib  # noqa: F401  whether it can be imported is the question
    except ImportError:
        return "numpy"
    return "hnswlib"


def products(vector: bytes, others: bytes, count: int) -> list[float]:
    """The product of `vector` with each of the `count` others, which stand one behind the other: the cosine, as a search scores it.

    Raises:
        EmbeddingError: they are no vectors of its dimensions.
    """
    check_vector(vector)
    if len(others) != count * len(vector):
        raise EmbeddingError(f"{len(others)} bytes are not {count} vectors of {len(vector)} bytes each")
    if not others:
        return []
    if backend() == "plain":
        from projections.vectors.index_plain import products as plain

        return plain(vector, others)
    from projections.vectors.index_numpy import products as fast

    return fast(vector, others)


def open_index(
    space: Space,
    ids: Sequence[int],
    vectors: Sequence[bytes],
    *,
    position: int,
    folder: Path | None,
    background: Background,
    vectors_per_graph: int = VECTORS_PER_GRAPH,
) -> VectorIndex:
    """The best index that there is here, holding these rows.

    Args:
        position: the place in the log up to which the rows are known; a file that knows more is of another view, and is not used.
        folder: where the view keeps files of its indexes; None keeps none.

    Raises:
        EmbeddingError: a vector does not have the dimensions of `space`; nothing was opened.
    """
    index: VectorIndex
    match backend():
        case "plain":
            from projections.vectors.index_plain import PlainIndex

            index = PlainIndex(space.dimensions)
        case "numpy":
            from projections.vectors.index_numpy import BlockIndex

            index = BlockIndex(space.dimensions)
        case "hnswlib":
            from projections.vectors.index_graphed import GraphedIndex

            graphed = GraphedIndex(space, folder=folder, background=background, vectors_per_graph=vectors_per_graph)
            graphed.restore(ids, vectors, position)
            return graphed
    index.put(ids, vectors)
    return index
