"""Threads as wholes: which there are, and what is no longer shown (S38).

A thread that is deleted is so by an event that says it, and what it said before leaves the file as soon as no copy reads it
(`freeing_sqlite`). That it was there, when and how often it was written stays in the log. ``cuebook erase thread/ID`` also ends the stream,
so that the id is never used again, and makes sure at once that no byte is left in unused parts of the file.

A thread that is pruned, or from which runs are removed, shows less. Checkpoints are stored as what changed, so what is left is told by what
went. Once a quarter of what the thread stores is of no more use, what is left is told anew, and what was said before leaves the file in the
same transaction (`rebasing`), as far as no copy reads it. Of a conversation about a half goes: its newest checkpoint holds every message.
"""

from collections.abc import Callable, Sequence

from actors.graph import freeing_sqlite as freeing
from actors.graph import index_sqlite as index
from actors.graph import recorded
from actors.graph.difference import write
from actors.graph.listing import PAGE, thread_of
from actors.graph.rebasing import rebase
from actors.graph.thread_state import Place, ThreadState
from actors.graph.threads import Said, Steps, Threads
from events.envelope import NewEvent
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

    def all_but_the_newest(state: ThreadState) -> list[Place]:
        return [(ns, each.id) for ns in state.namespaces() for each in list(state.checkpoints(ns))[1:]]

    for thread_id in thread_ids:
        if strategy == "delete":
            yield from _delete(threads, thread_id, require)
        else:
            yield from _remove(threads, thread_id, "prune", all_but_the_newest, require)
    if strategy == "delete":
        yield threads.shard.write(freeing.free)


def delete_for_runs(threads: Threads, run_ids: Sequence[str], require: Require) -> Steps[None]:
    """Checkpoints of these runs, wherever they are."""
    wanted = set(run_ids)
    if not wanted:
        return

    def of_runs(state: ThreadState) -> list[Place]:
        found = [each for ns in state.namespaces() for each in state.checkpoints(ns)]
        return [(each.ns, each.id) for each in found if (text := each.metadata.get("run_id")) and state.packer.value(text) in wanted]

    for stream, name in (yield threads.shard.read(index.threads_of_runs, wanted)):
        yield from _remove(threads, thread_of(stream, name), "runs", of_runs, require)


def _remove(
    threads: Threads, thread_id: str, why: str, choose: Callable[[ThreadState], list[Place]], require: Require
) -> Steps[None]:
    """Those checkpoints are not shown any more. A copy that is made between the look at what copies read and the write only makes the room
    smaller that is given back."""
    state = yield from threads.settled(thread_id)
    read_upto, elsewhere = yield threads.shard.read(freeing.room, state.stream)
    own: int | None = None
    if read_upto:
        own = yield threads.shard.read(freeing.said_between, state.stream, read_upto, state.version)

    def make(state: ThreadState) -> Sequence[NewEvent]:
        require(state)
        gone = choose(state)
        if not gone and not state.hides():
            return []
        events = rebase(state, gone, why, elsewhere + (state.said if own is None else own))
        if events or not gone:
            return events
        return write(state, lambda: [(recorded.Removed(why=why, checkpoints=gone), f"{why}: {len(gone)} checkpoints")])

    yield from threads.change_by(thread_id, make)
