"""What reaches an actor and what a turn asks of another: plain records, apart from the engine that handles them."""

import msgspec

from events.ids import CommandId, StreamId


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A request to one actor, as it came in. `chain` names the actors that wait for this ask, outermost first (S23).

    explicit: the caller chose the id, so that a repeat is possible. time: the sender's logical time, 0 from outside. copied_since_us: the
    id was made up by a worker, and since then another owner may have done a copy of this command (S5); 0 = it cannot. client: names the
    connection that asks from outside, as far as that is known; only fairness depends on it.
    patient: the caller waits until its own deadline; else that is ours (S10), and a turn that waits answers 202 at once (S20).
    """

    stream: StreamId
    method: str
    args: bytes
    command_id: CommandId
    explicit: bool
    received_at_us: int
    sender: str | None = None
    causation_id: str | None = None
    correlation_id: str | None = None
    traceparent: str | None = None
    deadline_ms: int | None = None
    chain: tuple[str, ...] = ()
    time: int = 0
    source: str | None = None
    copied_since_us: int = 0
    client: str = ""
    patient: bool = True


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """An ask to another actor, made by a turn. The id is derived, so a re-run asks with the same one; `repeated` says that this is one.
    settles: it tells what has happened, and so is asked also when nobody waits for the turn any more (`actors.holding.settles`)."""

    receiver: StreamId
    method: str
    args: bytes
    command_id: CommandId
    timeout_s: float | None
    repeated: bool = False
    settles: bool = False
