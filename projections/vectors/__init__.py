"""Search by meaning: an index in memory that follows the rows of a view; exact, or by hnswlib where there are many vectors."""
