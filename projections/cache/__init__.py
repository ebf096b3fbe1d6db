"""The cache: results of steps that somebody has had before, in this process and in a Redis or Valkey server (S37, design.md 7).

The server is a projection of the log: `view_redis` fills it from journaled results, so that it can be lost at any moment. `step_cache` asks
it, behind what this process has had itself. Nothing that is found in the server is trusted further than its seal (`values`).
"""
