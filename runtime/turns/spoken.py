"""``_said {command_id, after}``: what a turn has said on ``cue.chunk`` so far, for whoever comes late or comes back.

Chunks are not recorded. The owner keeps those of the turns under way in memory, so that a reader has the beginning (from here) and the rest
(from the subject), joined by attempt and offset (`runtime/hearing.py`); once the turn has ended its recorded reply counts, and they are
dropped. What stands at one offset of one attempt never changes: whoever says something else there does so under a higher attempt, which
begins anew - a new owner, which knows nothing of what the one before it said, or a turn that this one runs again.
"""

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from actors.errors import BadPayload, Unknown
from actors.message import Command
from actors.registry import field_of
from actors.turn import Turn
from events.codec import decode_strict, encode
from events.errors import CuebookError
from events.ids import CommandId, StreamId
from events.store import InboxStatus
from runtime.exchange import Reply, ReplyTo

if TYPE_CHECKING:
    from runtime.shard import Shard

SAID: Final = "_said"
TURN_BYTES_MAX: Final = 1_048_576
"""Of one turn: of what is said beyond that the oldest is forgotten."""
TURNS_MAX: Final = 256
"""Of more turns under way that have said something only the offsets are kept."""
SPEAKERS_MAX: Final = 16_384
ATTEMPTS_OF_AN_OWNER: Final = 1_000_000_000
"""Attempts are numbered within an owner's epoch: a later owner's are all higher, and below 2**53 for nine million owners."""
PAGE_BYTES: Final = 262_144


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """The answer. status: ``running``, or how the command has ended, with its `reply` (an error body unless ``done``).

    attempt: of the chunks, 0 if nothing was said. offset: of the first of `chunks`; more than what was asked for = the owner has forgotten
    the ones before. more: ask again behind the last.
    """

    status: Literal["running", "done", "refused", "failed"]
    attempt: int = 0
    offset: int = 0
    chunks: list[msgspec.Raw] = []
    more: bool = False
    reply: msgspec.Raw = msgspec.Raw(b"null")


class SaidArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which command of the addressed actor. after: the first offset that is wanted, of that `attempt`; of another one, all is given."""

    command_id: str
    after: int = 0
    attempt: int = 0


class _Turn:
    """What one attempt of one command has said."""

    __slots__ = ("attempt", "began", "chunks", "first", "size", "turn")

    def __init__(self, attempt: int, turn: Turn, first: int) -> None:
        self.attempt = attempt
        self.first = first
        self.chunks: list[bytes] = []
        self.size = 0
        self.turn = turn
        self.began = {turn.resumed: first}
        """Where each of its segments (S20) began to speak, by the number of segments before it."""

    @property
    def end(self) -> int:
        return self.first + len(self.chunks)

    def goes_on(self, turn: Turn) -> bool:
        """Whether what `turn` says comes behind what was said. One that goes on behind a further wait is another `Turn`, whose finished
        steps say nothing again; one that is run again would say something else where this attempt has spoken."""
        if turn is self.turn:
            return True
        if turn.resumed in self.began:
            return False
        self.turn, self.began[turn.resumed] = turn, self.end
        return True

    def again(self, attempt: int, turn: Turn) -> "_Turn":
        """The same up to where the segment that is run again began to speak, as a new attempt."""
        cut = self.began[turn.resumed]
        other = _Turn(attempt, turn, cut)
        other.began = {before: at for before, at in self.began.items() if before <= turn.resumed}
        for data in self.chunks[: max(0, cut - self.first)]:
            other.keep(data)
        other.first = cut - len(other.chunks)
        return other

    def keep(self, data: bytes) -> None:
        self.chunks.append(data)
        self.size += len(data)
        dropped = 0
        while self.size > TURN_BYTES_MAX and dropped < len(self.chunks) - 1:
            self.size -= len(self.chunks[dropped])
            dropped += 1
        del self.chunks[:dropped]
        self.first += dropped

    def forget(self) -> None:
        self.first, self.chunks, self.size = self.end, [], 0


class Spoken:
    """Of one shard."""

    def __init__(self, epoch: int) -> None:
        self._turns: OrderedDict[tuple[StreamId, str], _Turn] = OrderedDict()
        self._full: OrderedDict[tuple[StreamId, str], None] = OrderedDict()
        self._attempts = epoch * ATTEMPTS_OF_AN_OWNER

    def __len__(self) -> int:
        return len(self._turns)

    def add(self, turn: Turn, offset: int, data: Any) -> tuple[int, int]:
        """Keep a chunk; returns the attempt and the offset that it is published with. Of many, the turns that have been silent longest are
        forgotten first.

        Args:
            offset: how many chunks the turn has counted before this one.
        """
        name = (turn.command.stream, str(turn.command.command_id))
        said = self._turns.get(name)
        if said is None:
            said = self._turns[name] = _Turn(self._next(), turn, offset)
        elif not said.goes_on(turn):
            said = self._turns[name] = said.again(self._next(), turn)
        place = said.end
        said.keep(encode(data))
        self._turns.move_to_end(name)
        self._full[name] = None
        self._full.move_to_end(name)
        while len(self._full) > TURNS_MAX:
            self._turns[self._full.popitem(last=False)[0]].forget()
        while len(self._turns) > SPEAKERS_MAX:
            self._full.pop(self._turns.popitem(last=False)[0], None)
        return said.attempt, place

    def _next(self) -> int:
        self._attempts += 1
        return self._attempts

    def end(self, stream: StreamId, command_id: str) -> tuple[int, int] | None:
        """The turn has ended; returns its attempt and the offset behind all that it said, None if it said nothing."""
        said = self._turns.pop((stream, command_id), None)
        self._full.pop((stream, command_id), None)
        return None if said is None else (said.attempt, said.end)

    def page(self, stream: StreamId, wanted: SaidArguments) -> Said:
        said = self._turns.get((stream, wanted.command_id))
        if said is None:
            return Said(status="running")
        after = max(said.first, wanted.after if wanted.attempt == said.attempt else 0)
        page: list[msgspec.Raw] = []
        size = 0
        for data in said.chunks[after - said.first :]:
            if page and size + len(data) > PAGE_BYTES:
                break
            page.append(msgspec.Raw(data))
            size += len(data)
        return Said(status="running", attempt=said.attempt, offset=after, chunks=page, more=after + len(page) < said.end)


def send_end(shard: "Shard", command: Command) -> None:
    """The last chunk of a turn whose end is committed."""
    said = shard.spoken.end(command.stream, str(command.command_id))
    if said is not None:
        shard.exchange.chunk(command, *said, None, end=True)


def wanted_of(body: bytes) -> SaidArguments:
    """Raises: BadPayload: not ``{"command_id": "..."}``."""
    try:
        decode_strict(body or b"{}")
        return msgspec.json.decode(body or b"{}", type=SaidArguments)
    except (msgspec.DecodeError, CuebookError) as error:
        raise BadPayload(f"{SAID}: {error}", field=field_of(error)) from error


def tell_said(shard: "Shard", stream: StreamId, wanted: SaidArguments, reply: ReplyTo) -> None:
    """Answer now if the turn is under way here, else from the log."""
    cell = shard.cells.get(stream)
    if cell is not None and cell.under_way(wanted.command_id) is not None:
        reply(Reply(encode(shard.spoken.page(stream, wanted))))
        return
    shard.spawn(_from_the_log(shard, stream, wanted, reply), name=f"said {stream}")


async def _from_the_log(shard: "Shard", stream: StreamId, wanted: SaidArguments, reply: ReplyTo) -> None:
    try:
        entry = await shard.store.inbox(stream, CommandId(wanted.command_id))
    except CuebookError as error:
        reply(Reply(error=Unknown(f"the log cannot be read: {error}", command_id=wanted.command_id)))
        return
    if entry is None:
        reply(Reply(error=Unknown(f"{stream} knows no command {wanted.command_id!r}", command_id=wanted.command_id)))
    elif entry.status in (InboxStatus.QUEUED, InboxStatus.RUNNING):
        reply(Reply(encode(shard.spoken.page(stream, wanted))))  # it waits for an answer (S20), or is being taken up
    else:
        status: Any = {InboxStatus.DONE: "done", InboxStatus.FAILED: "failed"}.get(entry.status, "refused")
        reply(Reply(encode(Said(status=status, reply=msgspec.Raw(entry.reply or b"null")))))
