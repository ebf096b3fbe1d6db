"""The threads of one folder: in memory while they are used, in the log before anybody is told (S38).

A write is decided on the thread as it will be once everything before it is committed, like the short turns of an actor (S14); a read waits
for the commit of what it saw. If a commit fails, the thread in memory is thrown away and folded again.

What is done is written once, as generators of futures: `run_sync` and `run_async` drive them.
"""

import asyncio
import hashlib
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from actors.graph import freeing_sqlite as freeing
from actors.graph import index_sqlite as index
from actors.graph import recorded
from actors.graph.difference import write
from actors.graph.errors import StaleWriteOwnerError, ThreadWriteError
from actors.graph.folding import Folded
from actors.graph.following import FOLLOWED, Following, Place
from actors.graph.kinds import Kinds
from actors.graph.kinds_langgraph import BY_TYPE, fingerprint
from actors.graph.known_streams import STREAMS_MAX, KnownStreams
from actors.graph.packing import Packer
from actors.graph.thread_state import ThreadState
from actors.journal import Forked
from events.clock import Clock, SystemClock
from events.envelope import Kind, NewEvent
from events.errors import AppendOutcomeUnknownError, ConfigurationError, CuebookError, SupersededError
from events.ids import StreamId, Version
from events.limits import MIB
from events.log_directory import LOG_FILE, create_log
from events.sqlite.sqlite_library import Durability
from events.sqlite.threaded_sqlite import Queued, ThreadedShard
from events.store import Append, Base, Committed, Outcome
from events.submitted import Submitted

T = TypeVar("T")
Steps = Generator["Future[Any] | Submitted[Any]", Any, T]
"""Yields what is to be waited for and is sent its result; returns a T."""
Said = Sequence[tuple[msgspec.Struct, str | None]]
Make = Callable[[Any], Sequence[NewEvent]]

THREADS_MAX: Final = 1_000
THREADS_BYTES_MAX: Final = 256 * MIB
"""What is kept of threads that nobody is writing. Beyond it the one used longest ago is read again when it is needed."""
LOOK_S: Final = 1.0
ATTEMPTS: Final = 2
"""A write that conflicts, or whose outcome is unknown, is decided once more (S18)."""
_PLAIN: Final = re.compile(r"(?!x_)[A-Za-z0-9_-]{1,64}")


def stream_of(thread_id: str) -> StreamId:
    """The stream of a thread: under its own name if that can be one, else under a hash of it; then the stream says whose it is."""
    if _PLAIN.fullmatch(thread_id):
        return StreamId(f"{index.THREAD_TYPE}/{thread_id}")
    digest = hashlib.sha256(thread_id.encode("utf-8", "surrogatepass")).hexdigest()
    return StreamId(f"{index.THREAD_TYPE}/x_{digest[:40]}")


def thread_state(thread_id: str, packer: Packer) -> ThreadState:
    """A thread that nothing was folded into."""
    return ThreadState(thread_id, stream_of(thread_id), packer)


def run_sync(steps: Steps[T]) -> T:
    """Drive `steps` and block meanwhile."""
    try:
        future = next(steps)
        while True:
            try:
                result = future.result()
            except Exception as error:  # noqa: BLE001 - it is the steps' to handle
                future = steps.throw(error)
            else:
                future = steps.send(result)
    except StopIteration as stop:
        done: T = stop.value
        return done


async def run_async(steps: Steps[T]) -> T:
    """Drive `steps` on the running loop. Cancelling the caller does not stop a commit that was submitted."""
    try:
        future = next(steps)
        while True:
            try:
                result = await (future if isinstance(future, Submitted) else asyncio.wrap_future(future))
            except Exception as error:  # noqa: BLE001 - it is the steps' to handle
                future = steps.throw(error)
            else:
                future = steps.send(result)
    except StopIteration as stop:
        done: T = stop.value
        return done
    finally:
        steps.close()


class _SourceChangedError(Exception):
    """What is to be copied is not what it was when it was looked at."""


class _Kept:
    """A thread in memory. pending: the newest of its writes, if that is not committed yet. broken: one of them failed."""

    def __init__(self, state: Any) -> None:
        self.state = state
        self.bytes: int = state.bytes
        """What it counts for in `Threads`."""
        self.pending: Queued | None = None
        self.broken = False
        self.following = Following()

    @property
    def is_idle(self) -> bool:
        return self.pending is None or self.pending.done()


class Threads:
    """See the module. Safe to be used from any thread and any event loop at once."""

    def __init__(
        self, shard: ThreadedShard, kinds: Kinds, clock: Clock, streams: KnownStreams, make: "Callable[[str, Packer], Any]"
    ) -> None:
        self._make = make
        self._streams = streams
        self.shard = shard
        self.kinds = kinds
        self._clock = clock
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._is_owner = True
        self._is_closed = False
        self._looked_at = clock.monotonic()
        self._bytes = 0
        self._owed: dict[str, BaseException] = {}
        """What became of a write whose caller was let go early (`following`): the next one is told."""
        self.guard = threading.RLock()

    @classmethod
    def open(cls, path: Path, *, durability: Durability, types: dict[str, type] | None, clock: Clock | None = None) -> "Threads":
        """Make the log ``path/log`` if there is none, and take it: a writer that had it is refused from now on (S2, S3). Blocks.

        Raises:
            ConfigurationError: the folder holds a log that is not for threads alone, or one of several shards. And as `ThreadedShard.open`.
        """
        # As a deployment has it, so that ``cuebook --data PATH`` finds it; a folder that is a log itself is taken as it is.
        path = path if (path / LOG_FILE).exists() else path / "log"
        kinds, clock = Kinds(types, BY_TYPE), clock or SystemClock()
        identity = create_log(path, 1)
        if identity.shards != 1:
            raise ConfigurationError(
                f"the log in {path} has {identity.shards} shards, a log of threads has one: export it, and import it with --shards 1",
                path=str(path),
            )
        shard = ThreadedShard.open(
            path, 0, worker=f"langgraph-{os.getpid()}", durability=durability, companion=index.GraphIndex(),
            before=index.only_ours, clock=clock,
        )  # fmt: skip
        try:
            names = shard.read(index.stream_names, STREAMS_MAX).result()
        except BaseException:
            shard.close()
            raise
        return cls(shard, kinds, clock, KnownStreams(names), thread_state)

    def beside(self, make: "Callable[[str, Packer], Folded]") -> "Threads":
        """Something else than threads, in the same folder."""
        return Threads(self.shard, self.kinds, self._clock, self._streams, make)

    def wall_us(self) -> int:
        """Microseconds since 1970."""
        return self._clock.wall_us()

    # Reading

    def _find(self, thread_id: str) -> _Kept | None:
        with self.guard:
            kept = self._kept.get(thread_id)
            if kept is not None:
                self._kept.move_to_end(thread_id)
            return kept

    def _read(self, thread_id: str) -> Steps[_Kept]:
        """A thread that is not in memory."""
        state = self._make(thread_id, Packer(self.kinds, fingerprint))
        stream = StreamId(state.stream)
        with self.guard:
            is_new = self._is_owner and not self._streams.may_hold(stream)
        if not is_new:
            version, events = yield self.shard.read(index.load, 0, stream, self.shard.head(stream), self._is_owner)
            state.fold(events)
            state.version = version
            if events and (first := next((event for event, home in events if event.stream == stream), None)) is not None:
                state.branch, state.parent = first.branch, first.parent
        with self.guard:
            if not self._is_owner:
                return _Kept(state)  # somebody else writes it now, so nothing is kept
            # Another caller may have read it meanwhile, and written it.
            kept = self._kept.setdefault(thread_id, _Kept(state))
            if kept.state is state:
                self._bytes += kept.bytes
                self._make_room()
            return kept

    def _make_room(self) -> None:
        if len(self._kept) <= THREADS_MAX and self._bytes <= THREADS_BYTES_MAX:
            return
        self._bytes = sum(kept.bytes for kept in self._kept.values())
        # More than needed, so that not every new thread looks through all of them.
        least, least_bytes = THREADS_MAX * 3 // 4, THREADS_BYTES_MAX * 3 // 4
        for thread_id, kept in list(self._kept.items())[:-1]:
            if len(self._kept) <= least and self._bytes <= least_bytes:
                break
            if kept.is_idle:
                del self._kept[thread_id]
                self._bytes -= kept.bytes

    def forget(self, thread_id: str) -> None:
        """Read the thread again when it is next needed."""
        with self.guard:
            kept = self._kept.pop(thread_id, None)
            if kept is not None:
                self._bytes -= kept.bytes
                kept.broken = True

    def settled(self, thread_id: str) -> Steps[Any]:
        """The thread with nothing in it that is not committed when this returns.

        Another saver may have taken the folder without our knowing: that is looked up once a second (S31), so a read is never older.
        """
        if self._is_owner and self._clock.monotonic() - self._looked_at > LOOK_S:
            self._looked_at = self._clock.monotonic()
            epoch = yield self.shard.read(index.owner_epoch)
            if self.shard.ownership is None or epoch != self.shard.ownership.epoch:
                self._lost()
        while True:
            kept = self._find(thread_id) or (yield from self._read(thread_id))
            pending = kept.pending
            if pending is not None:
                try:
                    yield pending
                except CuebookError:
                    self._drop(thread_id, kept)
            if not kept.broken:
                return kept.state

    def _lost(self) -> None:
        with self.guard:
            self._is_owner = False
            self._kept.clear()
            self._bytes = 0

    def _superseded(self, error: SupersededError, thread_id: str | None) -> StaleWriteOwnerError:
        self._lost()
        fields = {key: value for key, value in error.fields.items() if key != "thread_id"}
        return StaleWriteOwnerError(error.message, thread_id=thread_id, **fields)

    def _drop(self, thread_id: str, kept: _Kept) -> None:
        with self.guard:
            kept.broken = True
            if self._kept.get(thread_id) is kept:
                del self._kept[thread_id]
                self._bytes -= kept.bytes

    # Writing

    def change(
        self, thread_id: str, build: Callable[[Any], Said], then: Callable[[Any], None] | None = None, *, put: Place | None = None
    ) -> Steps[None]:
        """Record what `build` says of the thread; durable when this returns.

        Args:
            build: called with the thread as it will be; may be called again. Nothing = it is there already: waits for its commit.
            then: called right after the thread has changed in memory.
            put: this is the checkpoint of that place. It may return once it is known that another put waits for it: `following`.

        Raises:
            StaleWriteOwnerError: another saver owns the folder now. ThreadWriteError: a write before it failed. LogFullError,
            AppendOutcomeUnknownError: as `ShardStore.append`; the outcome is looked up once before.
        """
        return self.change_by(thread_id, lambda state: write(state, lambda: _begun(state, build(state))), then, put=put)

    def change_by(
        self, thread_id: str, make: Make, then: Callable[[Any], None] | None = None, *, put: Place | None = None
    ) -> Steps[None]:
        """As `change`, for what is more than new words about the thread as it is: `make` gives the events, and changes the thread as if
        they were recorded."""
        attempts = 0
        while True:
            kept = self._find(thread_id) or (yield from self._read(thread_id))
            with self.guard:
                owed = self._owed.pop(thread_id, None)
                if owed is not None:
                    raise owed
                if kept.broken:
                    continue
                future = self._submit(kept, make, then)
                waited: Submitted[Any] | None = future if future is None or put is None else kept.following.waited(put, future)
            if waited is None:
                return
            attempts += 1
            try:
                outcome = yield waited
            except SupersededError as error:
                self._drop(thread_id, kept)
                raise self._superseded(error, thread_id) from error
            except AppendOutcomeUnknownError:
                # Told again, as a difference from what the log holds then: if it was written, there is nothing left to say.
                self._drop(thread_id, kept)
                if attempts == ATTEMPTS:
                    raise
                continue
            if outcome is FOLLOWED or isinstance(outcome, Committed):
                return
            self._drop(thread_id, kept)
            if attempts == ATTEMPTS:
                raise _unwritten(thread_id, outcome)

    def announce(self, thread_id: str, ns: str, checkpoint_id: str) -> None:
        """Something was written on a checkpoint: puts that its own put comes after need not wait for their commit (`following`)."""
        with self.guard:
            kept = self._kept.get(thread_id)
            if kept is not None:
                kept.following.announce(ns, checkpoint_id)

    def _submit(self, kept: _Kept, make: Make, then: Callable[[Any], None] | None) -> Queued | None:
        state = kept.state
        events = make(state)
        if not events:
            return kept.pending
        if then is not None:
            then(state)
        bytes_ = state.bytes
        self._bytes += bytes_ - kept.bytes
        kept.bytes = bytes_
        pending = kept.pending
        if pending is not None and self.shard.join(pending, events):
            return pending
        group = Append(
            stream=StreamId(state.stream), expected_version=Version(state.version - len(events)), command_id=None, events=events,
            branch=state.branch, parent=state.parent,
        )  # fmt: skip
        self._streams.add(state.stream)
        future = kept.pending = self.shard.submit(group)
        future.add_done_callback(lambda done: self._ended(state.name, kept, done))
        return future

    def _ended(self, thread_id: str, kept: _Kept, future: Submitted[Outcome]) -> None:
        # Also if nobody waits any more: what is in memory must not differ from the log.
        error = future.exception()
        if error is not None or not isinstance(future.result(), Committed):
            self._drop(thread_id, kept)
            with self.guard:
                if kept.following.was_let_go(future):
                    if error is None:
                        error = _unwritten(thread_id, future.result())
                    self._owed[thread_id] = self._superseded(error, thread_id) if isinstance(error, SupersededError) else error
        with self.guard:
            if kept.pending is future:
                kept.pending = None  # a thread that nobody writes does not hold what was written last
        kept.following.ended(future)

    def fork(self, source_id: str, target_id: str) -> Steps[None]:
        """Make `target_id` a copy of `source_id`: of its size is only what it does later (S33).

        Raises:
            ThreadWriteError: the target holds something. And as `change`.
        """
        while not (yield from self._fork(source_id, target_id)):
            pass  # the source was deleted, or read again, meanwhile
        self.forget(target_id)

    def _fork(self, source_id: str, target_id: str) -> Steps[bool]:
        target = yield from self.settled(target_id)
        source = yield from self.settled(source_id)  # last, so that little happens to it before the copy is submitted
        if source.is_empty():
            return True
        if not target.is_empty():
            raise ThreadWriteError(f"thread {target_id!r} is not empty, so it cannot become a copy of {source_id!r}", thread_id=target_id)
        with self.guard:
            head = self.shard.head(source.stream)
            version, life = source.version, source.life
        if head is None or head.version != version:
            head = yield self.shard.read(index.head, source.stream)
            if head is None or head.version != version:
                return False  # it is being written, and what is not committed yet may be that it begins anew

        def check() -> None:
            # Under the guard, in which the copy is submitted: a deletion that is submitted later finds it, and leaves what it reads.
            kept = self._kept.get(source_id)
            if self._is_owner and (kept is None or kept.state is not source or source.life != life):
                raise _SourceChangedError

        try:
            if target.version:
                yield from self._become(target_id, recorded.Copied(stream=source.stream, version=version), source_id, check)
            else:
                yield from self._begin_fork(source, target, version, head.hash, check)
        except _SourceChangedError:
            return False
        return True

    def _become(self, target_id: str, copied: recorded.Copied, source_id: str, check: Callable[[], None]) -> Steps[None]:
        """The copy in a thread that was used before."""

        def build(state: ThreadState) -> Said:
            check()
            return [(recorded.Deleted(), None), (copied, f"copy of {source_id}")]

        yield from self.change(target_id, build)
        yield self.shard.write(freeing.free)

    def _begin_fork(
        self, source: ThreadState, target: ThreadState, version: int, hash_: bytes, check: Callable[[], None]
    ) -> Steps[None]:
        key = target.stream.partition("/")[2]
        forked = Forked(
            parent=StreamId(source.stream), version=Version(version), hash=hash_.hex(), state=msgspec.Raw(b"{}"), branch=key
        )
        events = [_forked(forked, source.thread_id)]
        events += [_named(struct) for struct, _ in target.first_words()]
        group = Append(
            stream=StreamId(target.stream), expected_version=Version(version), command_id=None, events=events, branch=key,
            parent=f"{source.stream}@{version}", base=Base(version=Version(version), hash=hash_),
        )  # fmt: skip
        with self.guard:
            check()
            self._streams.add(target.stream)
            submitted = self.shard.submit(group)
        try:
            outcome = yield submitted
        except SupersededError as error:
            raise self._superseded(error, target.thread_id) from error
        if not isinstance(outcome, Committed):
            raise ThreadWriteError(f"thread {target.thread_id!r} came into being meanwhile", thread_id=target.thread_id)

    def check_owner(self) -> Steps[None]:
        """Raises StaleWriteOwnerError if a write would be refused because another saver took the folder."""
        try:
            yield self.shard.check_owner()
        except SupersededError as error:
            raise self._superseded(error, None) from error

    def close(self) -> None:
        """Commit what was submitted, give room back, close the files; blocks. Idempotent."""
        if not self._is_closed:
            self._is_closed = True
            # Where it cannot be done, since another saver owns the folder or the disk is in trouble, whoever closes it next does it.
            with suppress(CuebookError):
                self.shard.write(freeing.free).result()
                self.shard.write(freeing.shrink).result()
        self.shard.close()


def _unwritten(thread_id: str, outcome: Any) -> ThreadWriteError:
    reason = getattr(outcome, "reason", "it is known already")
    return ThreadWriteError(f"thread {thread_id!r} could not be written: {reason}. Try again", thread_id=thread_id)


def _begun(state: Folded, said: Said) -> Said:
    return [*state.first_words(), *said] if said and state.version == 0 else said


def _forked(forked: Forked, source_id: str) -> NewEvent:
    return NewEvent(type=recorded.FORKED, kind=Kind.CONTROL, payload=msgspec.json.encode(forked), summary=f"copy of {source_id}"[:60])


def _named(struct: msgspec.Struct) -> NewEvent:
    return NewEvent(type=recorded.THREAD, payload=msgspec.json.encode(struct))
