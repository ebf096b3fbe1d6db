"""States of the past, and what changed between them: recorded events folded by the code that is at hand (S32). Nothing is written.

What needs the code of actors says so where there is none. Where the code at hand is not the one that recorded the events, the state hashes
in the log tell (S34): what it folds is shown, and with it where it parts from what was recorded.
"""

from typing import Any, Final

import msgspec

from actors.errors import BadPayload, Unknown
from actors.registry import ActorType, Registry
from actors.traps import pure
from events.codec import canonical_hash
from events.envelope import Kind, RecordedEvent
from events.errors import CorruptLogError, CuebookError, UnreadablePayloadError
from events.facts import FORKED
from events.ids import StreamId, parse_stream_id
from events.sealed.sealing import key_of_body
from events.store import LogReader
from runtime.turns.recovery import forked_state

FOLD_PAGE: Final = 1_000


class FoldError(CuebookError):
    """The code at hand cannot apply a recorded event: its `apply` raised, or reached outside of state and event."""

    code = "cannot_fold"


def code_of(registry: Registry | None, stream: StreamId) -> ActorType[Any] | None:
    """The actor type of `stream`, None where no code is at hand or the app does not have it."""
    return None if registry is None else registry.types.get(parse_stream_id(stream)[0])


def no_code(registry: Registry | None, stream: StreamId) -> str:
    """Why there is no state, and how to have one."""
    if registry is None:
        return "a state is folded by the code of its actors, and none was named: events only"
    return f"the app has no actor type {parse_stream_id(stream)[0]!r}: events only"


async def head_version(reader: LogReader, stream: StreamId) -> int:
    """The newest version of `stream`.

    Raises:
        Unknown: there is no such stream. BadPayload: no name of a stream.
    """
    try:
        found = await reader.head(stream)
    except ValueError as error:
        raise BadPayload(str(error), field="stream") from error
    if found is None:
        raise Unknown(f"there is no stream {stream}", stream=stream)
    return int(found.version)


class Fold:
    """One stream, folded event by event in a trap (S16). mismatch: the first place where another state was recorded, None so far."""

    def __init__(self, kind: ActorType[Any], stream: StreamId) -> None:
        self._kind = kind
        self._stream = stream
        self.state = kind.initial()
        self.version = 0
        self.mismatch: str | None = None

    def start_at(self, state: bytes, version: int) -> None:
        """Go on from a snapshot."""
        self.state, self.version = self._kind.decode_state(state), version

    def add(self, event: RecordedEvent) -> None:
        """Fold one event.

        Raises:
            FoldError: `apply` raised. CorruptLogError: not the next version. UnknownEventTypeError: code that lacks the event.
            UnreadablePayloadError: it is sealed and the key is not here, or it was erased (S29).
        """
        if event.type == FORKED and self.version in (0, event.version - 1):
            self._fork(event)
            return
        if event.version != self.version + 1:
            raise CorruptLogError(
                f"{self._stream}: version {self.version} is followed by {event.version}", stream=self._stream,
                expected=self.version + 1, found=event.version,
            )  # fmt: skip
        if event.kind is Kind.STATE:
            try:
                with pure():
                    self._kind.apply(self.state, event)
            except (CorruptLogError, UnreadablePayloadError):
                raise
            except CuebookError as error:
                raise FoldError(f"{self._stream} version {event.version}: {error.message}", **self._place(event)) from error
            except Exception as error:  # apply() is the author's code and may raise anything
                text = f"{self._stream} version {event.version}: apply of {event.type} raised {type(error).__name__}: {error}"
                raise FoldError(text, **self._place(event)) from error
        self.version = event.version
        if event.state_hash is not None and self.mismatch is None and (found := canonical_hash(self.state)) != event.state_hash:
            self.mismatch = (
                f"at version {event.version} the state recorded has the hash {event.state_hash[:12]}, this code folds {found[:12]}: "
                "its apply() is not the one that recorded the events"
            )

    def _fork(self, event: RecordedEvent) -> None:
        """A fork begins with the state that was recorded, whatever this code folds from its parent (S33)."""
        folded = canonical_hash(self.state) if self.version > 0 else None
        fork, self.state = forked_state(self._kind, event)
        self.version = event.version
        if folded is not None and fork.edit is None and self.mismatch is None and folded != canonical_hash(self.state):
            self.mismatch = (
                f"at version {event.version} the fork began with another state than this code folds from its parent: "
                "its apply() is not the one that recorded the events"
            )

    def _place(self, event: RecordedEvent) -> dict[str, Any]:
        return {"stream": self._stream, "version": event.version, "position": f"{event.shard}:{event.position}"}

    def plain(self) -> Any:
        """The state as plain JSON values, apart from `state`."""
        return msgspec.json.decode(self._kind.encode_state(self.state))


class StateView(msgspec.Struct, frozen=True, kw_only=True):
    """A state at a version, or why there is none (S32). version: the last event that it includes; head: the stream's newest.

    mismatch: where this code parts from what was recorded (S34), None where it does not as far as the log can tell.
    """

    stream: StreamId
    version: int
    head: int
    state: Any = None
    state_hash: str | None = None
    note: str | None = None
    mismatch: str | None = None


async def state_at(reader: LogReader, registry: Registry | None, stream: StreamId, version: int | None = None) -> StateView:
    """The state of `stream` after its event `version`; None = now.

    Raises:
        Unknown: there is no such stream or version.
        FoldError, CorruptLogError: the code or the log does not fit.
    """
    newest = await head_version(reader, stream)
    at = newest if version is None else version
    if not 0 <= at <= newest:
        raise Unknown(f"{stream} has versions 1 to {newest}, not {at}", stream=stream, version=at)
    kind = code_of(registry, stream)
    if kind is None:
        return StateView(stream=stream, version=at, head=newest, note=no_code(registry, stream))
    try:
        fold = await folded(reader, kind, stream, at)
    except UnreadablePayloadError as error:
        return StateView(stream=stream, version=at, head=newest, note=error.message)
    return StateView(
        stream=stream, version=at, head=newest, state=fold.plain(), state_hash=canonical_hash(fold.state), mismatch=fold.mismatch
    )


async def folded(reader: LogReader, kind: ActorType[Any], stream: StreamId, at: int) -> Fold:
    """`stream` folded up to version `at`, from its snapshot where that helps; up to where a fork branched off it is its parent (S33).
    Raises as `state_at`."""
    first = await reader.read_stream(stream, after=0, limit=1)
    if first and first[0].version > max(1, at):
        return await folded(reader, kind, StreamId(forked_state(kind, first[0])[0].parent), at)
    fold = Fold(kind, stream)
    snapshot = await reader.snapshot(stream)
    sealed = snapshot is not None and key_of_body(snapshot.state) is not None
    if snapshot is not None and not sealed and snapshot.shape == kind.shape and snapshot.version <= at:
        fold.start_at(snapshot.state, int(snapshot.version))
    while fold.version < at:
        page = await reader.read_stream(stream, after=fold.version, limit=min(FOLD_PAGE, at - fold.version))
        if not page:
            raise CorruptLogError(
                f"{stream} ends at version {fold.version}, its head says {at}", stream=stream, expected=at, found=fold.version
            )
        for event in page:
            if event.version > at:  # the first page of a fork begins behind the versions that it was counted from
                return fold
            fold.add(event)
    return fold


class DiffView(msgspec.Struct, frozen=True, kw_only=True):
    """What changed between two versions, as JSON Patch (RFC 6902); None where there is no code (S32). old, new: the states; mismatch as
    in `StateView`."""

    stream: StreamId
    from_version: int
    to_version: int
    patch: list[dict[str, Any]] | None = None
    note: str | None = None
    mismatch: str | None = None


async def diff(reader: LogReader, registry: Registry | None, stream: StreamId, from_version: int, to_version: int) -> DiffView:
    """The patch that leads from the state at `from_version` (0 = before the first event) to that at `to_version`. Raises as `state_at`."""
    return difference(await state_at(reader, registry, stream, from_version), await state_at(reader, registry, stream, to_version))


def difference(old: StateView, new: StateView) -> DiffView:
    """What leads from one state to the other."""
    return DiffView(
        stream=new.stream, from_version=old.version, to_version=new.version,
        patch=None if new.note is not None else json_patch(old.state, new.state), note=new.note, mismatch=old.mismatch or new.mismatch,
    )  # fmt: skip


def json_patch(old: Any, new: Any) -> list[dict[str, Any]]:
    """The JSON Patch (RFC 6902) from `old` to `new`, both plain JSON values."""
    import jsonpatch

    patch: list[dict[str, Any]] = jsonpatch.make_patch(old, new).patch
    return patch
