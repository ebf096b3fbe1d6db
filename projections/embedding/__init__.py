"""Models that turn texts into vectors: one of our own that needs nothing, and adapters of others. Port: `events.embedding`."""
