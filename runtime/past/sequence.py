"""Who said what to whom in one conversation: messages and work in the order of the log, for a list, a Mermaid diagram and a picture.

Read from recorded edges only: an ask and a tell name their receiver, a turn its sender. What nobody recorded (the command of a client whose
actor answered from memory) is not made up.
"""

import re
from typing import Any, Final, Literal

import msgspec

from actors.journal import TURN_ENDS, TURN_STARTED
from events.envelope import Kind, RecordedEvent
from events.ids import StreamId
from events.selection import OUTSIDE
from runtime.past.causes import Trace, TurnNode, flat, payload_of

_LABEL_CHARACTERS_MAX: Final = 80
Says = Literal["ask", "tell", "reply", "failure"]


class Arrow(msgspec.Struct, kw_only=True):
    """One message. time: logical, when it was recorded by whoever recorded it; said: arguments, reply or error.

    answer: of an ask, the index of its reply in `Sequence.parts`; None while there is none.
    """

    time: int
    source: str
    target: str
    label: str
    says: Says
    said: Any
    place: str
    command_id: str
    answer: int | None = None
    duration_us: int | None = None


class Work(msgspec.Struct, kw_only=True):
    """A step, a view, a wait or a timer of an actor. end: index of the part at which it ended, None while it has not.

    duration_us is by the logical times of its two events.
    """

    time: int
    actor: str
    label: str
    failed: str | None
    given: Any
    result: Any
    place: str
    end: int | None = None
    duration_us: int | None = None


class Note(msgspec.Struct, kw_only=True):
    """Something that happened to an actor, at one moment. mark: the end of a turn or a wait, of which only the place matters."""

    time: int
    actor: str
    label: str
    failed: bool
    place: str
    mark: bool = False


class Turn(msgspec.Struct, kw_only=True):
    """Where a turn lies among the parts: first and last index. ended: it is not under way."""

    actor: str
    command_id: str
    method: str | None
    first: int
    last: int
    duration_us: int
    error: str | None
    ended: bool


class Sequence(msgspec.Struct, frozen=True, kw_only=True):
    """`parts` in merged order, and who takes part in order of appearance."""

    correlation_id: str
    actors: list[str]
    parts: list[Arrow | Work | Note]
    turns: list[Turn]


def sequence(found: Trace) -> Sequence:
    """The messages and the work of a conversation."""
    builder = _Builder(found)
    for event in found.events:
        builder.add(event)
    return builder.result()


class _Builder:
    def __init__(self, found: Trace) -> None:
        self._found = found
        self._nodes: dict[tuple[StreamId, str], TurnNode] = {(node.stream, node.command_id): node for _, node in flat(found.roots)}
        self._parts: list[Arrow | Work | Note] = []
        self._turns: dict[tuple[StreamId, str], Turn] = {}
        self._sent: set[str] = set()
        self._open: dict[tuple[str, str, str], int] = {}
        self._arrived: dict[tuple[StreamId, str], int] = {}

    def add(self, event: RecordedEvent) -> None:
        key = (event.stream, event.command_id or "")
        node = self._nodes[key]
        payload = {} if event.kind is Kind.STATE else payload_of(event)
        if key not in self._turns:
            self._begin(key, node, event, payload)
        first = len(self._parts)
        self._event(key, event, payload)
        turn = self._turns[key]
        turn.last = max(turn.last, len(self._parts) - 1, first if first < len(self._parts) else 0)
        if event.type in TURN_ENDS:
            turn.ended = True

    def _begin(self, key: tuple[StreamId, str], node: TurnNode, event: RecordedEvent, payload: dict[str, Any]) -> None:
        if node.command_id not in self._sent:
            # No record of its being sent: a client's command, or one whose sender is not part of this.
            self._arrived[key] = len(self._parts)
            self._parts.append(
                Arrow(
                    time=event.time, source=node.sender or OUTSIDE, target=event.stream, label=node.method or event.type,
                    says="tell" if node.sender else "ask", said=payload.get("arguments"), place=_place(event), command_id=node.command_id,
                )
            )  # fmt: skip
        else:
            self._note(event, node.method or event.type, mark=True)
        at = len(self._parts) - 1
        self._turns[key] = Turn(
            actor=event.stream, command_id=node.command_id, method=node.method, first=at, last=at, duration_us=node.duration_us,
            error=node.error, ended=event.type != TURN_STARTED,
        )  # fmt: skip

    def _event(self, key: tuple[StreamId, str], event: RecordedEvent, payload: dict[str, Any]) -> None:
        effect, _, outcome = event.type.partition(".")
        name = str(payload.get("name", ""))
        use = (event.stream, effect, f"{event.command_id} {name} {payload.get('key')} {payload.get('n')} {payload.get('wait_id')}")
        if effect == "ask" and event.kind is Kind.STEP:
            self._ask(use, event, payload, outcome)
        elif event.type == "message.sent":
            self._sent.add(str(payload.get("command_id")))
            self._arrow(event, str(payload.get("receiver")), str(payload.get("method")), "tell", payload.get("arguments"), payload)
        elif event.kind is Kind.STEP:
            self._work(use, event, payload, f"{effect} {name}", begins=outcome in ("started", "opened"))
        elif event.type in TURN_ENDS:
            self._end(key, event, payload)
        elif event.kind is Kind.TIMER or event.type == "dead.letter" or event.error is not None:
            about = payload.get("timer_id") or payload.get("reason") or event.error or ""
            self._note(event, f"{event.type} {about}".strip(), failed=event.error is not None or event.type == "dead.letter")

    def _ask(self, use: tuple[str, str, str], event: RecordedEvent, payload: dict[str, Any], outcome: str) -> None:
        receiver, _, method = str(payload.get("name", "")).partition(".")
        if outcome == "started":
            self._sent.add(str(payload.get("command_id")))
            self._open[use] = len(self._parts)
            self._arrow(event, receiver, method, "ask", payload.get("arguments"), payload)
            return
        failed = outcome == "failed"
        self._answer(self._open.pop(use, None), event)
        self._parts.append(
            Arrow(
                time=event.time, source=receiver, target=event.stream, label=event.error or "reply" if failed else "reply",
                says="failure" if failed else "reply", said=payload.get("message") if failed else payload.get("result"),
                place=_place(event), command_id=event.command_id or "",
            )
        )  # fmt: skip

    def _answer(self, index: int | None, event: RecordedEvent) -> None:
        part = None if index is None else self._parts[index]
        if isinstance(part, Arrow | Work):
            part.duration_us = event.time - part.time
            if isinstance(part, Arrow):
                part.answer = len(self._parts)
            else:
                part.end = len(self._parts)

    def _work(self, use: tuple[str, str, str], event: RecordedEvent, payload: dict[str, Any], label: str, *, begins: bool) -> None:
        if begins:
            self._open[use] = len(self._parts)
            self._parts.append(
                Work(
                    time=event.time, actor=event.stream, label=label, failed=None, given=payload.get("args"), result=None,
                    place=_place(event),
                )
            )  # fmt: skip
            return
        index = self._open.pop(use, None)
        part = None if index is None else self._parts[index]
        if isinstance(part, Work):
            part.failed = event.error
            part.result = payload.get("result", payload.get("value", payload.get("message")))
        self._answer(index, event)
        self._note(event, label if not event.error else f"{label}: {event.error}", failed=event.error is not None, mark=index is not None)

    def _end(self, key: tuple[StreamId, str], event: RecordedEvent, payload: dict[str, Any]) -> None:
        index = self._arrived.get(key)
        asked = None if index is None else self._parts[index]
        failed = event.type != "turn.completed"
        if isinstance(asked, Arrow) and asked.says == "ask":
            self._answer(index, event)
            label = f"{event.type.removeprefix('turn.')}: {event.error or payload.get('message', '')}" if failed else "reply"
            said = payload.get("message") if failed else payload.get("reply")
            self._parts.append(
                Arrow(
                    time=event.time, source=event.stream, target=asked.source, label=label, says="failure" if failed else "reply",
                    said=said, place=_place(event), command_id=event.command_id or "",
                )
            )  # fmt: skip
        else:
            self._note(event, f"{event.type}: {event.error}" if event.error else event.type, failed=failed, mark=not failed)

    def _arrow(self, event: RecordedEvent, target: str, label: str, says: Says, said: Any, payload: dict[str, Any]) -> None:
        self._parts.append(
            Arrow(
                time=event.time, source=event.stream, target=target, label=label, says=says, said=said, place=_place(event),
                command_id=str(payload.get("command_id", "")),
            )
        )  # fmt: skip

    def _note(self, event: RecordedEvent, label: str, *, failed: bool = False, mark: bool = False) -> None:
        self._parts.append(Note(time=event.time, actor=event.stream, label=label, failed=failed, place=_place(event), mark=mark))

    def result(self) -> Sequence:
        actors: dict[str, None] = {}
        for part in self._parts:
            for actor in (part.source, part.target) if isinstance(part, Arrow) else (part.actor,):
                actors.setdefault(actor)
        return Sequence(correlation_id=self._found.correlation_id, actors=list(actors), parts=self._parts, turns=list(self._turns.values()))


def _place(event: RecordedEvent) -> str:
    return f"{event.shard}:{event.position}"


def messages(found: Sequence) -> list[dict[str, Any]]:
    """Who said what to whom: one row per message, an ask with its answer."""
    answers = {part.answer for part in found.parts if isinstance(part, Arrow) and part.answer is not None}
    rows: list[dict[str, Any]] = []
    for index, part in enumerate(found.parts):
        if not isinstance(part, Arrow) or index in answers:
            continue
        answer = None if part.answer is None else found.parts[part.answer]
        rows.append({
            "time": part.time, "place": part.place, "sender": part.source, "receiver": part.target, "says": part.says, "method": part.label,
            "command_id": part.command_id, "arguments": part.said,
            "reply": answer.said if isinstance(answer, Arrow) and answer.says == "reply" else None,
            "error": answer.said or answer.label if isinstance(answer, Arrow) and answer.says == "failure" else None,
            "duration_us": part.duration_us,
        })  # fmt: skip
    return rows


# -- Mermaid ------------------------------------------------------------------------------------------------------------------------------

_ARROWS: Final = {"ask": "->>", "tell": "-)", "reply": "-->>", "failure": "--x"}


def mermaid(found: Sequence) -> str:
    """A Mermaid sequence diagram: asks with their replies, tells as open arrows, steps and failures as notes."""
    short = {name: f"p{index}" for index, name in enumerate(found.actors)}
    lines = ["sequenceDiagram", *(f"    participant {short[name]} as {_label(name)}" for name in found.actors)]
    for part in found.parts:
        if isinstance(part, Arrow):
            lines.append(f"    {short[part.source]}{_ARROWS[part.says]}{short[part.target]}: {_label(part.label)}")
        elif isinstance(part, Work):
            took = "" if part.duration_us is None else f" ({part.duration_us / 1_000:.0f} ms)"
            lines.append(f"    Note over {short[part.actor]}: {_label(part.label + took + (f': {part.failed}' if part.failed else ''))}")
        elif not part.mark and (part.failed or part.label):
            lines.append(f"    Note over {short[part.actor]}: {_label(part.label)}")
    return "\n".join(lines) + "\n"


def _label(text: str) -> str:
    """`text` without what Mermaid reads as its own: it ends a statement at ';' and a line break, and '#' begins an entity."""
    clean = re.sub(r"[;#\s]+", " ", text).strip() or "-"
    return clean if len(clean) <= _LABEL_CHARACTERS_MAX else clean[: _LABEL_CHARACTERS_MAX - 1] + "…"
