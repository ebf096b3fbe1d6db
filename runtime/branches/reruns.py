"""One recorded turn, to be run again in a fork that branches off before it: what it was asked, as far as the log says."""

from typing import Any

import msgspec

from actors.errors import BadPayload, Unknown
from actors.journal import TURN_STARTED, Started, derived_id
from actors.registry import Registry
from events.codec import encode
from events.envelope import RecordedEvent
from events.facts import FORKED
from events.ids import StreamId, parse_stream_id
from events.selection import correlated
from events.store import LogReader
from runtime.branches.boundaries import boundary_before, window
from runtime.branches.fork_plan import Rerun, StreamFork, plan_before
from runtime.branches.forking import RerunArguments
from runtime.past.merging import merged


async def plan_rerun(
    reader: LogReader,
    registry: Registry | None,
    stream: StreamId,
    version: int,
    child: StreamId,
    method: str | None = None,
    arguments: Any = None,
    *,
    live: bool = False,
) -> tuple[StreamFork, Rerun]:
    """The fork before the turn of event `version`, and the command to run in it: the recorded one, or `method` with `arguments`.

    Raises:
        Unknown: there is no such version. BadPayload: the log does not hold the command and `method` is not given; else as `plan_stream`.
    """
    events = await window(reader, stream, version, version)
    if not events or events[0].version != version:
        raise Unknown(f"{stream} has no version {version} of its own", stream=stream, version=version)
    event = events[0]
    recorded = await _asked(reader, event)
    if recorded is None and method is None:
        raise BadPayload(
            f"what {stream} was asked at version {version} is not in the log: a short turn leaves no arguments; give METHOD and ARGUMENTS",
            field="method",
        )
    name = method or (recorded[0] if recorded is not None else "")
    body = recorded[1] if recorded is not None and arguments is None and name == recorded[0] else encode(arguments or {})
    # The first event of a fork is no turn: what is given runs upon it.
    before = int(event.version) if event.type == FORKED else await _beginning(reader, event)
    branch = parse_stream_id(child)[1]
    fork = await plan_before(reader, registry, stream, before, child, branch=branch, live=live)
    command = RerunArguments(
        command_id=derived_id("rerun", event.event_id, child), method=name, arguments=msgspec.Raw(body), causation_id=event.event_id,
        correlation_id=branch,
    )  # fmt: skip
    return fork, Rerun(stream=child, arguments=command)


async def _beginning(reader: LogReader, event: RecordedEvent) -> int:
    """The last version before the turn of `event`."""
    version = await boundary_before(reader, event.stream, int(event.version) - 1)
    while version > 0:
        last = await window(reader, event.stream, version, version)
        if not last or last[0].command_id != event.command_id:
            break
        version = await boundary_before(reader, event.stream, version - 1)
    return version


async def _asked(reader: LogReader, event: RecordedEvent) -> tuple[str, bytes] | None:
    """Method and arguments of the turn of `event`: from its own beginning, or from the record of whoever sent it."""
    if event.correlation_id is None:
        return None
    async for other in merged(reader, correlated(event.correlation_id)):
        if other.stream == event.stream and other.command_id == event.command_id and other.type == TURN_STARTED:
            started = msgspec.json.decode(other.payload, type=Started)
            return started.command, bytes(started.arguments)
        if other.type in ("ask.started", "message.sent"):
            sent = msgspec.json.decode(other.payload)
            if sent["command_id"] == event.command_id and sent["receiver"] == event.stream:
                return str(sent["method"]), encode(sent["arguments"])
    return None
