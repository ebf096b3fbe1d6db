"""Read models rebuilt from the log: memory, cache, vectors, your own. Never needed for correctness."""

from projections.projection import Database, Projection, operation, row_id

__all__ = ["Database", "Projection", "operation", "row_id"]
