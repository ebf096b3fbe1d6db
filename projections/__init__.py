"""Read models rebuilt from the log: memory, cache, vectors, your own. Never needed for correctness."""
