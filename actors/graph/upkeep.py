"""Threads as wholes: which there are, and what is no longer shown (S38).

A thread that is deleted is so by an event that says it, and what it said before leaves the file as soon as no copy reads it
(`freeing_sqlite`). That it was there, when and how often it was written stays in the log. ``cuebook erase thread/ID`` also ends the stream,
so that the id is never used again, and makes sure at once that no byte is left in unused parts of the file.

A thread that is pruned, or from which runs are removed, shows less and keeps its room: checkpoints are stored as what changed, so what
is left is told as a difference from what went, and a DeltaChannel reads back through it. About half could be won: the newest checkpoint of
a conversation of 200 turns, stored alone, takes half of what all 1,000 events of it say (measured 2026-11). Who wants that half back goes
on in a new thread with the newest state (``update_state``) and deletes this one.
"""

from collections.abc import Callable, Sequence

from actors.graph import freeing_sqlite as freeing
from actors.graph import index_sqlite as index
from actors.graph import recorded
from actors.graph.listing import PAGE, thread_of
from actors.graph.thread_state import ThreadState
from actors.graph.threads import Said, Steps, Threads
from events.errors import ConfigurationError

Require = Callable[[ThreadState], None]


def thread_ids(threads: Threads) -> Steps[list[str]]:
    """The ids of all threads that hold a checkpoint."""
    found: list[str] = []
    after = ""
    while rows := (yield threads.shard.read(index.thread_rows, after, PAGE)):
        for stream, name in rows:
            thread_id = thread_of(stream, name)
            state = yield from threads.settled(thread_id)
            if not state.is_empty():
                found.append(thread_id)
        after = rows[-1][0]
    return found


def delete_thread(threads: Threads, thread_id: str, require: Require) -> Steps[None]:
    """The thread is empty afterwards, and begins anew if it is written again. Its room is free at once, or where a copy reads what it said,
    once the last such copy is deleted."""
    yield from _delete(threads, thread_id, require)
    yield threads.shard.write(freeing.free)


def _delete(threads: Threads, thread_id: str, require: Require) -> Steps[None]:

    def build(state: ThreadState) -> Said:
        require(state)
        return [] if state.is_empty() and not state.has_writes() else [(recorded.Deleted(), None)]

    yield from threads.change(thread_id, build)


def prune(threads: Threads, thread_ids: Sequence[str], strategy: str, require: Require) -> Steps[None]:
    """Raises ConfigurationError: no such strategy."""
    if strategy not in ("keep_latest", "delete"):
        raise ConfigurationError(f"prune: {strategy!r} is none of 'keep_latest' and 'delete'", strategy=strategy)

    def build(state: ThreadState) -> Said:
        require(state)
        gone = [(ns, each.id) for ns in state.namespaces() for each in list(state.checkpoints(ns))[1:]]
        return [(recorded.Removed(why="prune", checkpoints=gone), f"prune: {len(gone)} checkpoints")] if gone else []

    for thread_id in thread_ids:
        if strategy == "delete":
            yield from _delete(threads, thread_id, require)
        else:
            yield from threads.change(thread_id, build)
    if strategy == "delete":
        yield threads.shard.write(freeing.free)


def delete_for_runs(threads: Threads, run_ids: Sequence[str], require: Require) -> Steps[None]:
    """Checkpoints of these runs, wherever they are."""
    wanted = set(run_ids)
    if not wanted:
        return
    for stream, name in (yield threads.shard.read(index.threads_of_runs, wanted)):
        yield from threads.change(thread_of(stream, name), _removal(wanted, require))


def _removal(wanted: set[str], require: Require) -> Callable[[ThreadState], Said]:
    def build(state: ThreadState) -> Said:
        require(state)
        found = [each for ns in state.namespaces() for each in state.checkpoints(ns)]
        gone = [(each.ns, each.id) for each in found if (text := each.metadata.get("run_id")) and state.packer.value(text) in wanted]
        return [(recorded.Removed(why="runs", checkpoints=gone), f"runs: {len(gone)} checkpoints")] if gone else []

    return build
