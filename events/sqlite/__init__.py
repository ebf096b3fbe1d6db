"""The log on SQLite, a file per shard: the adapters of the ports in `events.store`."""
