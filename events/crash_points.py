"""Where a process may die: one name for every moment that a promise has to survive, and the hook by which tests make it die there.

Nothing is installed in production: a point is then a call that looks at one variable (about 50 ns, a handful per commit, none per event).
`tests/crash/test_crash_points.py` kills a real process at each point with SIGKILL, and fails for a point that nobody exercises.
"""

from collections.abc import Callable
from enum import StrEnum


class CrashPoint(StrEnum):
    """Named by what has just happened; what the name does not mention has not."""

    # One append transaction, in order. A checkpoint of the write-ahead log happens inside COMMIT, where no Python runs.
    APPEND_CALLED = "append.called"
    APPEND_EVENTS = "append.events"
    APPEND_INBOX = "append.inbox"
    APPEND_SNAPSHOT = "append.snapshot"
    APPEND_ROWS = "append.rows"
    APPEND_FLUSHING = "append.flushing"
    """The heads stand in `streams`, the row that says as of where does not."""
    APPEND_READY = "append.ready"
    APPEND_COMMITTED = "append.committed"
    APPEND_ANCHORED = "append.anchored"
    # Takeover (S2).
    TAKE_BUMPED = "take.bumped"
    TAKE_COMMITTED = "take.committed"
    # A turn with effects (S15, F-4).
    TURN_JOURNALED = "turn.journaled"
    STEP_RAN = "step.ran"
    """The effect has happened, its result is not recorded."""
    PUBLISHED = "published"
    """Replies, events and sends of some commits are with the NATS client."""
    # Sends to another shard (S25), at the sender and at the receiver.
    OUTBOX_SENT = "outbox.sent"
    OUTBOX_ACCEPTED = "outbox.accepted"
    OUTBOX_ACKNOWLEDGED = "outbox.acknowledged"
    # Tells (S11) and timers (S26).
    TELL_ACCEPTED = "tell.accepted"
    TELL_ACKNOWLEDGED = "tell.acknowledged"
    TIMER_ACCEPTED = "timer.accepted"
    # A shard that moves as planned (S5).
    HANDOVER_DRAINED = "handover.drained"
    # Keeping the log.
    MIGRATION_STATEMENT = "migration.statement"
    ARCHIVE_READY = "archive.ready"
    ERASE_PAYLOADS = "erase.payloads"
    ERASE_READY = "erase.ready"
    ERASE_COMMITTED = "erase.committed"
    ERASE_KEY_OVERWRITTEN = "erase.key_overwritten"
    ERASE_KEYS_GONE = "erase.keys_gone"
    ERASE_SCRUBBED = "erase.scrubbed"
    COPY_FILLED = "copy.filled"
    """The folder of a backup or an import is whole, but has no name yet."""
    EXPORT_WRITTEN = "export.written"
    RESTORE_BEGUN = "restore.begun"
    RESTORE_COPIED = "restore.copied"
    RESTORE_PREPARED = "restore.prepared"
    RESTORE_HIDDEN = "restore.hidden"
    RESTORE_FIRST_SHARD = "restore.first_shard"
    RESTORE_ALL_SHARDS = "restore.all_shards"
    RESTORE_SHOWN = "restore.shown"
    # What deleted threads said (S38).
    GRAPH_FREE_READY = "graph.free_ready"
    GRAPH_REBASE_READY = "graph.rebase_ready"
    """A thread is told anew and what it said before is gone, not committed."""
    # A view (F-5).
    VIEW_CREATED = "view.created"
    VIEW_APPLIED = "view.applied"
    """Rows and checkpoint are written, not committed."""
    VIEW_COMMITTED = "view.committed"
    VIEW_ERASED = "view.erased"
    """What an erased stream left in a view is deleted, its bytes may still be in the file."""
    REBUILD_BUILT = "rebuild.built"
    """The new view has caught up; the old one still serves."""
    REBUILD_POINTED = "rebuild.pointed"
    REBUILD_SWAPPED = "rebuild.swapped"
    """The new view serves after a restart, the old one still lies beside it."""
    REBUILD_REMOVED = "rebuild.removed"


_hook: Callable[[CrashPoint], None] | None = None


def install(hook: Callable[[CrashPoint], None] | None) -> None:
    """Call `hook` at every point from now on, on whichever thread reaches it; None takes it out again. For tests only."""
    global _hook
    _hook = hook


def reached(point: CrashPoint) -> None:
    """This process is at `point`."""
    if _hook is not None:
        _hook(point)
