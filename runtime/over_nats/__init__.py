"""Everything that travels over NATS: the adapters of the ports that shards, clients and readers know."""
