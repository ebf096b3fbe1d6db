"""The view of what agents remember: ``cue.view.memory.recall`` and its kin, in one SQLite file with FTS5 and vectors, rebuilt from the
log."""
