"""``_said {command_id, after}``: what a turn has said on ``cue.chunk`` so far, for whoever comes late or comes back.

Chunks are not recorded. The owner keeps those of the turns under way in memory, so that a reader has the beginning (from here) and the rest
(from the subject), joined by attempt and offset; once the turn has ended its recorded reply counts, and they are dropped. A new owner knows
nothing of what the one before it said: its attempt is a higher one, which begins anew.
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
from runtime.items import Item

if TYPE_CHECKING:
    from runtime.cell import Cell
    from runtime.shard import Shard

SAID: Final = "_said"
TURN_BYTES_MAX: Final = 1_048_576
"""Of one turn: of what is said beyond that the oldest is forgotten."""
TURNS_MAX: Final = 256
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

    __slots__ = ("attempt", "chunks", "first", "shift", "size", "turn")

    def __init__(self, attempt: int) -> None:
        self.attempt = attempt
        self.first = 0
        self.chunks: list[bytes] = []
        self.size = 0
        self.turn: Turn | None = None
        self.shift = 0

    @property
    def end(self) -> int:
        return self.first + len(self.chunks)

    def place(self, turn: Turn, offset: int) -> int:
        """The offset of a chunk of the whole attempt. A turn that goes on behind a wait (S20) is another `Turn` of the same attempt, whose
        steps do not say again what is recorded: it goes on behind what was said. One that runs again without a wait says the same again."""
        if turn is not self.turn:
            self.turn, self.shift = turn, max(0, self.end - offset) if turn.resumed else 0
        return offset + self.shift

    def keep(self, offset: int, data: bytes) -> None:
        if offset < self.end:
            for gone in self.chunks[max(0, offset - self.first) :]:
                self.size -= len(gone)
            del self.chunks[max(0, offset - self.first) :]
        if offset < self.first or not self.chunks:
            self.first = offset
        self.chunks.append(data)
        self.size += len(data)
        dropped = 0
        while self.size > TURN_BYTES_MAX and dropped < len(self.chunks) - 1:
            self.size -= len(self.chunks[dropped])
            dropped += 1
        del self.chunks[:dropped]
        self.first += dropped


class Spoken:
    """Of one shard."""

    def __init__(self) -> None:
        self._turns: OrderedDict[tuple[StreamId, str], _Turn] = OrderedDict()

    def __len__(self) -> int:
        return len(self._turns)

    def add(self, command: Command, attempt: int, turn: Turn, offset: int, data: Any) -> int:
        """Keep a chunk; returns the offset that it is published with. The turn that has been silent longest is forgotten first."""
        name = (command.stream, str(command.command_id))
        said = self._turns.get(name)
        if said is None or said.attempt != attempt:
            said = self._turns[name] = _Turn(attempt)
        self._turns.move_to_end(name)
        place = said.place(turn, offset)
        said.keep(place, encode(data))
        while len(self._turns) > TURNS_MAX:
            self._turns.popitem(last=False)
        return place

    def end(self, command: Command, offset: int) -> int:
        """The turn has ended; returns the offset behind all that it said."""
        said = self._turns.pop((command.stream, str(command.command_id)), None)
        return offset if said is None else max(offset, said.end)

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


def send_end(cell: "Cell", item: Item, turn: Turn) -> None:
    """The last chunk of a turn whose end is committed."""
    offset = cell.shard.spoken.end(item.command, turn.chunks_sent)
    if offset:
        cell.shard.exchange.chunk(item.command, item.attempt(cell.shard.epoch), offset, None, end=True)


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
