"""What `threads.Threads` keeps in memory and writes: something that the events of one stream fold to (S38)."""

from collections.abc import Iterable
from typing import Any

import msgspec

from actors.graph import recorded
from actors.graph.packing import Packer
from events.envelope import MAIN_BRANCH, Kind, RecordedEvent
from events.errors import CorruptLogError


class Folded:
    """The state of one stream as of `version`. Changed only by `apply`. branch, parent: what its next events say of themselves (S33)."""

    def __init__(self, name: str, stream: str, packer: Packer) -> None:
        self.name = name
        self.stream = stream
        self.packer = packer
        self.version = 0
        self.said = 0
        """Bytes of payload that its own stream holds since it began, or began anew."""
        self.branch = MAIN_BRANCH
        self.parent: str | None = None

    @property
    def bytes(self) -> int:
        """About what it takes in memory."""
        raise NotImplementedError

    def apply(self, event: Any, home: int) -> None:
        """One event, read or about to be written. home: `thread_state.Checkpoint.home`."""
        raise NotImplementedError

    def first_words(self) -> list[tuple[msgspec.Struct, str | None]]:
        """What its stream has to begin with."""
        return []

    def fold(self, events: Iterable[tuple[RecordedEvent, int]]) -> None:
        """Apply events as read from the log, each with its home.

        Raises:
            CorruptLogError: one is not what we write, or of a type that this program does not know.
        """
        for event, home in events:
            payload = bytes(event.payload)
            if payload == b"null":
                continue  # erased: a later event says what is left
            decoder = recorded.BY_TYPE.get(event.type)
            if decoder is None and event.kind is Kind.CONTROL:
                continue  # that the stream was archived or erased
            if decoder is None:
                raise CorruptLogError(f"{event.stream} holds an event {event.type}, which is none of ours", stream=event.stream)
            own = event.stream == self.stream
            try:
                struct = decoder.decode(payload)
                self.apply(struct, struct.home if own and isinstance(struct, recorded.Kept) else home)
                self.said += len(payload) if own else 0
            except msgspec.ValidationError as error:
                raise CorruptLogError(
                    f"{event.stream} version {event.version}: {event.type} is not what it should be: {error}",
                    stream=event.stream, version=event.version, position=event.position,
                ) from error  # fmt: skip

    def add_parts(self, event: Any) -> None:
        """The parts of an event that is read; one about to be written has them here already."""
        parts = self.packer.parts
        if not event.parts:
            return
        if event.first == len(parts):
            for part in event.parts:
                parts.add(bytes(part))
        elif event.first + len(event.parts) > len(parts):
            raise CorruptLogError(f"{self.stream}: an event adds parts from {event.first}, there are {len(parts)}", stream=self.stream)
