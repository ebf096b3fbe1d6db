"""The invariants of durability.md 3a as checkers over a finished history. Each says what does not hold; nothing said = it holds."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any

import msgspec

from actors.errors import Cancelled
from actors.journal import TURN_CANCELLED, TURN_COMPLETED, TURN_ENDS, TURN_STARTED
from actors.registry import ActorType
from events.codec import canonical_hash
from events.envelope import GENESIS_HASH, Kind, RecordedEvent, chain_hash, payload_hash
from tests.support.sim_bank import ACCOUNTS, APP, EVENTS_OF, Account
from tests.support.sim_history import NOT_LOOKED, History, Operation

Checker = Callable[[History], Iterator[str]]


def _payload(event: RecordedEvent) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(event.payload)
    return found


def _kind(stream: str) -> ActorType[Any]:
    return APP.registry.type(stream.partition("/")[0])


def _facts(history: History) -> dict[tuple[str, str | None], list[RecordedEvent]]:
    """The state events of each command."""
    found: dict[tuple[str, str | None], list[RecordedEvent]] = defaultdict(list)
    for stream, events in history.streams().items():
        for event in events:
            if event.kind is Kind.STATE:
                found[stream, event.command_id].append(event)
    return found


def _expected(operation: Operation) -> int:
    return len(operation.arguments["parts"]) if operation.method == "deposit_parts" else EVENTS_OF[operation.method]


def i_1_acknowledged_commands_are_in_the_log(history: History) -> Iterator[str]:
    """And what a client was told was surely not done, and asked for no more, is not. (But for "no room" and "no time" where the network
    made two commands of one attempt, which NATS does not: then each copy has its own such answer.)"""
    facts = _facts(history)
    for operation in history.operations:
        if operation.query or not operation.answers:
            continue
        found = len(facts[operation.stream, operation.command_id])
        if operation.method == "decide" and operation.answers[-1].number == Cancelled.number:
            continue  # what it did until it waited is kept: I-6
        if operation.done is not None and found != _expected(operation):
            yield f"I-1: {operation.command_id} ({operation.stream}.{operation.method}) was acknowledged, {found} of its events are there"
        if operation.done is None and operation.resolved and found:
            last = operation.answers[-1]
            if last.number in NOT_LOOKED and operation.command_id in history.copied:
                continue
            yield f"I-1: {operation.command_id} was answered {last.number} {last.outcome} ({last.message}), but it was done"


def i_2_versions_and_positions_are_one_to_n(history: History) -> Iterator[str]:
    for shard, events in history.events.items():
        if [event.position for event in events] != list(range(1, len(events) + 1)):
            yield f"I-2: positions of shard {shard} are not 1..{len(events)}"
    for stream, events in history.streams().items():
        if [event.version for event in events] != list(range(1, len(events) + 1)):
            yield f"I-2: versions of {stream} are not 1..{len(events)}"


def i_4_epochs_never_decrease_and_have_one_owner(history: History) -> Iterator[str]:
    """I-3, I-4: and no append with a superseded epoch ever commits."""
    owners: dict[tuple[int, int], str] = {}
    for taken in history.taken:
        if owners.setdefault((taken.shard, taken.epoch), taken.worker) != taken.worker:
            yield f"I-4: epoch {taken.epoch} of shard {taken.shard} has two owners"
    for shard, events in history.events.items():
        last = 0
        for event in events:
            if event.owner_epoch < last:
                yield f"I-4: position {shard}:{event.position} is of epoch {event.owner_epoch} after {last}"
            last = event.owner_epoch
    epochs = {(shard, int(event.position)): event.owner_epoch for shard, events in history.events.items() for event in events}
    for written in history.written:
        for position in written.positions:
            if epochs.get((written.shard, position), written.epoch) != written.epoch:
                yield f"I-4: {written.worker} wrote {written.shard}:{position} in epoch {written.epoch}, which was superseded"


def i_5_success_is_told_only_of_what_is_committed(history: History) -> Iterator[str]:
    """Whoever told it, and whether or not it arrived: the events are in the log, and those of a query's version give its answer."""
    facts = _facts(history)
    done = {(operation.stream, operation.command_id): operation for operation in history.operations}
    for told in history.told:
        if told.body is None or told.query:
            continue
        operation = done.get((told.stream, told.command_id))
        expected = EVENTS_OF.get(told.method) if operation is None else _expected(operation)
        if expected is not None and len(facts[told.stream, told.command_id]) != expected:
            yield f"I-5: {told.worker} (epoch {told.epoch}) told success of {told.command_id}, which is not in the log"


def i_6_groups_are_atomic(history: History) -> Iterator[str]:
    """All events of a command or none, one after another."""
    methods = {(operation.stream, operation.command_id): operation for operation in history.operations}
    for (stream, command_id), events in _facts(history).items():
        operation = methods.get((stream, command_id or ""))
        if operation is not None and operation.method == "decide":
            # One group until it waits, another one to its end; an end by cancel has no second.
            ended = {event.type for event in history.of_command(stream, command_id or "")} & TURN_ENDS
            if len(events) != (2 if TURN_COMPLETED in ended else 1):
                yield f"I-6: {command_id} has {len(events)} events and ended by {ended}"
            continue
        if operation is not None and len(events) != _expected(operation):
            yield f"I-6: {command_id} has {len(events)} of {_expected(operation)} events"
        if [event.version for event in events] != list(range(events[0].version, events[0].version + len(events))):
            yield f"I-6: the events of {command_id} in {stream} do not stand together"


def i_7_one_id_has_one_effect_and_one_reply(history: History) -> Iterator[str]:
    replies: dict[tuple[str, str], set[bytes]] = defaultdict(set)
    for told in history.told:
        if told.body is not None and not told.query:
            replies[told.stream, told.command_id].add(told.body)
    for (stream, command_id), bodies in replies.items():
        if len(bodies) > 1:
            yield f"I-7: {command_id} to {stream} was answered {sorted(bodies)}"
    ended = Counter((row.stream, row.command_id) for row in history.inbox)
    yield from (f"I-7: the inbox holds {key} {count} times" for key, count in ended.items() if count > 1)
    for stream, events in history.streams().items():
        opened = Counter(event.command_id for event in events if event.type == TURN_STARTED)
        yield from (f"I-7: the turn of {command_id} in {stream} began {count} times" for command_id, count in opened.items() if count > 1)
    for operation in history.operations:
        answers = {answer.body for answer in operation.answers if answer.body is not None}
        if len(answers) > 1 and not operation.query:
            yield f"I-7: {operation.command_id} heard {answers}"


def i_8_replay_equals_live_state(history: History) -> Iterator[str]:
    """At the end, at every recorded state hash, and at the version of every answer to a query."""
    balances: dict[str, dict[int, int]] = {}
    for stream, events in history.streams().items():
        kind = _kind(stream)
        state = kind.initial()
        balances[stream] = {0: 0}
        for event in events:
            if event.kind is Kind.STATE:
                kind.apply(state, event)
            if isinstance(state, Account):
                balances[stream][event.version] = state.cents
            if event.state_hash is not None and event.state_hash != canonical_hash(state):
                yield f"I-8: {stream} version {event.version} recorded another state than replay gives"
        live = history.live.get(stream)
        if live is not None and (live.version, live.state_hash) != (len(events), canonical_hash(state)):
            yield f"I-8: {stream} says it is at version {live.version}, replay ends at {len(events)} in another state"
    for told in history.told:
        if told.method == "balance" and told.body is not None:
            at = balances.get(told.stream, {0: 0}).get(told.version)
            if at != msgspec.json.decode(told.body):
                yield f"I-8: {told.worker} answered {told.stream} balance {told.body!r} at version {told.version}, replay says {at}"


def i_14_recorded_steps_are_not_executed_again(history: History) -> Iterator[str]:
    """Nor does a reply hold anything but what was recorded. (A superseded owner may still finish what it began: S15 says intent, run,
    result, and a plain step runs at least once.)"""
    for executed in history.executed:
        if executed.recorded and executed.owner:
            yield f"I-14: {executed.worker} ran {executed.key} again after its result was recorded"
    results: dict[str, str] = {}
    for events in history.streams().values():
        for event in events:
            if event.type == "step.completed":
                key, _, count = _payload(event)["result"].partition("#")
                if key in results:
                    yield f"I-14: {key} has two recorded results"
                results[key] = f"{key}#{count}"
    for operation in history.operations:
        replies = operation.method in ("work", "work_together", "decide", "charge")
        if replies and operation.done is not None and operation.done.body is not None:
            for result in msgspec.json.decode(operation.done.body)[1 if operation.method == "decide" else 0 :]:
                if results.get(result.partition("#")[0]) != result:
                    yield f"I-14: {operation.command_id} replied {result}, recorded is {results.get(result.partition('#')[0])}"


def i_16_sends_arrive_in_order(history: History) -> Iterator[str]:
    """Per sender and receiver: 1, 2, 3 ... at the sender and at the receiver."""
    for stream, events in history.streams().items():
        sent: Counter[str] = Counter()
        received: Counter[str] = Counter()
        for event in events:
            if event.type not in ("simaccount.sent", "simaccount.received"):
                continue
            fact = _payload(event)
            counts, other = (sent, fact["to"]) if event.type == "simaccount.sent" else (received, fact["sender"])
            counts[other] += 1
            if fact["n"] != counts[other]:
                yield f"I-16: {stream} has number {fact['n']} of {other} where {counts[other]} is due"


def s_25_every_send_and_timer_is_handled_once(history: History) -> Iterator[str]:
    """Each ``message.sent`` of a tell has one effect at its receiver, and each ask of an auditor that was answered too."""
    if history.problems:
        return
    facts = _facts(history)
    for stream, events in history.streams().items():
        for event in events:
            said = _payload(event) if event.type in ("message.sent", "ask.started", "ask.completed", "ask.failed") else {}
            # What `_cancel` does is an end of another command, or nothing: it has no fact of its own.
            if event.type == "message.sent" and (said["command_id"] in history.dropped or said["method"] == "_cancel"):
                continue
            done = len(facts[said["receiver"], said["command_id"]]) if event.type == "message.sent" else 1
            if done != 1:
                yield f"S-25: {stream} told {said['receiver']} {said['method']} ({said['command_id']}): done {done} times"
        yield from _asks(stream, events, facts, history.copied)


def _asks(
    stream: str, events: list[RecordedEvent], facts: Mapping[tuple[str, str | None], list[RecordedEvent]], copied: set[str]
) -> Iterator[str]:
    asked: dict[tuple[str | None, str, int], tuple[str, str]] = {}
    for event in events:
        said = _payload(event) if event.type.startswith("ask.") else {}
        if event.type == "ask.started":
            asked[event.command_id, said["name"], said["n"]] = (said["receiver"], said["command_id"])
        elif said:
            receiver, command_id = asked.get((event.command_id, said["name"], said["n"]), ("", ""))
            if not receiver:
                yield f"S-25: {stream} version {event.version} is an answer to no ask"
                continue
            done = len(facts[receiver, command_id])
            if event.type == "ask.completed" and done != 1:
                yield f"S-25: {stream} was answered by {receiver}, which did {command_id} {done} times"
            if (
                event.type == "ask.failed"
                and said["reply"]["outcome"] == "not_done"
                and done
                and not (said["reply"]["code"] in NOT_LOOKED and command_id in copied)
            ):
                yield f"S-25: {stream} heard {said['reply']['code']} from {receiver}, which did {command_id} all the same"
            if done > 1:
                yield f"S-25: {receiver} did {command_id} {done} times"


def s_11_a_tell_that_was_kept_is_done_once(history: History) -> Iterator[str]:
    """However often it was delivered; one that nobody was told is kept, once at most."""
    facts = _facts(history)
    for tell in history.tells:
        done = len(facts[tell.stream, tell.command_id])
        due = 0 if tell.command_id in history.dropped else 1
        if done > 1 or (tell.kept and done != due and not history.problems):
            yield f"S-11: the tell {tell.command_id} ({tell.stream}.{tell.method}) was done {done} times"


def s_21_what_may_happen_once_happens_again_only_if_a_person_says_so(history: History) -> Iterator[str]:
    again: Counter[str] = Counter()
    for events in history.streams().values():
        for event in events:
            if event.type == "wait.answered" and _payload(event)["value"] == {"repeat": True}:
                again[event.command_id or ""] += 1
    for key, times in Counter(executed.key for executed in history.executed if executed.key.endswith("/once")).items():
        said = again[key.partition(".")[2].partition("/")[0]]
        if times > 1 + said:
            yield f"S-21: {key} ran {times} times, a person said {said} times that it may"


def s_22_the_first_end_wins(history: History) -> Iterator[str]:
    """Of a wait, of its answers, and of a command that somebody cancels; and whoever was told that he won has."""
    ends: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    types: dict[tuple[str, str], set[str]] = defaultdict(set)
    for stream, events in history.streams().items():
        for event in events:
            types[stream, event.command_id or ""].add(event.type)
            if event.type in ("wait.answered", "wait.expired"):
                fact = _payload(event)
                ends[stream, fact["wait_id"]].append({"type": event.type, **fact})
    for (stream, wait_id), found in ends.items():
        if len(found) > 1:
            yield f"S-22: the wait {wait_id} of {stream} ended {len(found)} times"
    for told in history.answered:
        if told.status == "won" and [end.get("value") for end in ends[told.stream, told.id]] != [told.value]:
            yield f"S-22: {told.value} to {told.stream} was told to have won, the log has {ends[told.stream, told.id]}"
    done = {(operation.stream, operation.command_id) for operation in history.operations if operation.done is not None}
    for told in history.cancelled:
        if told.status == "cancelled" and ((told.stream, told.id) in done or TURN_COMPLETED in types[told.stream, told.id]):
            yield f"S-22: {told.id} was told to be cancelled, and was done"
        if told.status == "done" and TURN_CANCELLED in types[told.stream, told.id]:
            yield f"S-22: {told.id} was told to be too far to be cancelled, and was cancelled"


def s_26_every_timer_fires_once(history: History) -> Iterator[str]:
    if history.problems:
        return
    for stream, events in history.streams().items():
        promised = Counter(_payload(event)["job"] for event in events if event.type == "simlabour.promised")
        kept = Counter(_payload(event)["job"] for event in events if event.type == "simlabour.reminded")
        if promised != kept:
            yield f"S-26: {stream} promised {dict(promised)} and was reminded {dict(kept)}"


def s_27_every_event_follows_from_the_one_before(history: History) -> Iterator[str]:
    for stream, events in history.streams().items():
        previous = GENESIS_HASH
        for event in events:
            salt = bytes.fromhex(event.salt or "")
            previous = chain_hash(
                previous, stream=event.stream, version=event.version, event_id=event.event_id, type=event.type,
                schema_version=event.schema_version, kind=event.kind.value, recorded_at_us=event.recorded_at_us, time=event.time,
                command_id=event.command_id, causation_id=event.causation_id, correlation_id=event.correlation_id, sender=event.sender,
                branch=event.branch, payload_digest=payload_hash(salt, bytes(event.payload)),
            )  # fmt: skip
            if previous.hex() != event.hash:
                yield f"S-27: the hash of {stream} version {event.version} does not follow"
                break


def s_30_effects_come_after_their_causes(history: History) -> Iterator[str]:
    """Logical times rise within a shard, and a tell's effect has a later one than its sender's record."""
    for shard, events in history.events.items():
        if any(before.time >= after.time for before, after in pairwise(events)):
            yield f"S-30: the logical times of shard {shard} do not rise"
    at = {
        _payload(event)["command_id"]: event.time
        for events in history.events.values()
        for event in events
        if event.type in ("message.sent", "ask.started")
    }
    for events in history.events.values():
        for event in events:
            if event.command_id is not None and event.kind is Kind.STATE and event.time <= at.get(event.command_id, 0):
                yield f"S-30: {event.stream} version {event.version} is at {event.time}, its cause at {at[event.command_id]}"


def money_is_conserved(history: History) -> Iterator[str]:
    if history.problems:
        return
    put_in = left = 0
    for stream, events in history.streams().items():
        for event in events:
            if event.type == "simaccount.deposited":
                put_in += _payload(event)["cents"]
            elif event.type == "simaccount.withdrawn":
                put_in -= _payload(event)["cents"]
        if stream.removeprefix("account/") in ACCOUNTS:
            state = _kind(stream).initial()
            for event in events:
                if event.kind is Kind.STATE:
                    _kind(stream).apply(state, event)
            left += state.cents
            if state.cents < 0:
                yield f"money: {stream} is overdrawn"
    if put_in != left:
        yield f"money: {put_in} was put in, {left} is there"


def turns_that_began_have_ended(history: History) -> Iterator[str]:
    if history.problems:
        return
    for stream, events in history.streams().items():
        began = Counter(event.command_id for event in events if event.type == TURN_STARTED)
        # A turn without a journal may record its failure alone.
        ended = Counter(event.command_id for event in events if event.type in TURN_ENDS and event.command_id in began)
        if began != ended:
            yield f"turns: of {stream} began {dict(began - ended)} and did not end, or {dict(ended - began)} ended twice"


def every_client_ends_with_an_outcome(history: History) -> Iterator[str]:
    """A reply, a refusal, or unknown, which asking again resolves; and the system comes to rest (I-24)."""
    yield from (f"run: {problem}" for problem in history.problems)
    if history.problems:
        return
    for operation in history.operations:
        if not operation.resolved:
            yield f"run: {operation.command_id} has no outcome: {operation.answers}"
    if history.unsent:
        yield f"run: {history.unsent} outbox rows were never sent"


CHECKERS: tuple[Checker, ...] = (
    every_client_ends_with_an_outcome, i_1_acknowledged_commands_are_in_the_log, i_2_versions_and_positions_are_one_to_n,
    i_4_epochs_never_decrease_and_have_one_owner, i_5_success_is_told_only_of_what_is_committed, i_6_groups_are_atomic,
    i_7_one_id_has_one_effect_and_one_reply, i_8_replay_equals_live_state, i_14_recorded_steps_are_not_executed_again,
    i_16_sends_arrive_in_order, money_is_conserved, s_11_a_tell_that_was_kept_is_done_once,
    s_21_what_may_happen_once_happens_again_only_if_a_person_says_so, s_22_the_first_end_wins,
    s_25_every_send_and_timer_is_handled_once, s_26_every_timer_fires_once,
    s_27_every_event_follows_from_the_one_before, s_30_effects_come_after_their_causes, turns_that_began_have_ended,
)  # fmt: skip


def violations(history: History) -> list[str]:
    """Everything that any checker finds."""
    return [finding for checker in CHECKERS for finding in checker(history)]
