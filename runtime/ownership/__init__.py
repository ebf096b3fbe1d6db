"""Who works and who owns which shard: lock files, heartbeats, the plan, and how a shard goes from one worker to the next (S1 to S9)."""
