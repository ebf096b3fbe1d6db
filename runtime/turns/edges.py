"""Which turn waits for which ask, and the probes that run along: data, as it travels (S23). What is done with them:
`runtime.turns.probes`."""

import msgspec

from events.ids import StreamId


class Edge(msgspec.Struct, frozen=True, array_like=True):
    """An ask that a turn waits for. time: the asker's logical time, by which asks have an age (S30)."""

    command_id: str
    sender: str
    receiver: str
    time: int


class Probe(msgspec.Struct, frozen=True, array_like=True):
    """Where it has been, the newest last. victim: the cycle is found, and its receiver is to refuse this ask."""

    edges: tuple[Edge, ...]
    victim: Edge | None = None

    @property
    def receiver(self) -> StreamId:
        return StreamId((self.victim or self.edges[-1]).receiver)


encode_probe = msgspec.msgpack.Encoder().encode
decode_probe = msgspec.msgpack.Decoder(Probe).decode
