"""Whether a log in use has come to rest: the judges count what is still under way as lost."""

import sqlite3
from contextlib import closing
from pathlib import Path


def at_rest(log: Path) -> bool:
    """Nothing waits, nothing is due, nothing is under way between shards."""
    for path in log.glob("shard-*.db"):
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            rows = connection.execute(
                "SELECT (SELECT count(*) FROM inbox WHERE status IN ('queued', 'running')) + (SELECT count(*) FROM outbox)"
                " + (SELECT count(*) FROM timers)"
            ).fetchone()
            if rows[0]:
                return False
    return True
