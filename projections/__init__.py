"""Read models rebuilt from the log: memory, cache, vectors, your own. Never needed for correctness."""

from projections.database import Database
from projections.projection import Projection, operation, row_id

__all__ = ["Database", "Projection", "operation", "row_id"]
