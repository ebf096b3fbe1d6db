"""Everything in a log that a person can answer: waits of turns, interrupts of graphs, steps that nobody knows the outcome of, and what runs
put to people. Read from the log alone, so that it is there with no server running."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ops.commands.access import registry_of, state_view
from ops.settings import Settings, default_data

if TYPE_CHECKING:
    from actors.registry import Registry
    from actors.tasks.state import TaskState
    from actors.tasks.waiting import Waiting
    from events.ids import StreamId
    from events.store import LogReader, WaitEntry

INTERRUPT: Final = "interrupt"
"""How graphs call their waits; their own module needs LangGraph, and a log can be read without it."""
_TEXT_MAX: Final = 2_000
_ANYTHING: Final = "..."
_DEPTH_MAX, _ITEMS_MAX = 8, 8
"""A schema may refer to itself, and ask for a million items: an example is short."""
Kind = str
"""approval | clarification: of a run; interrupt: of a graph; wait: of a turn; once: a step of unknown outcome, which holds its actor."""


class OpenWait(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a person can answer.

    asks: the stream of who asks, of a graph its node behind it. schema: JSON Schema of the answer, None = anything. deciders: who may
    answer; None = whoever reaches the deployment. answer: the command that answers, with a value that fits the schema, to be changed as
    meant.
    """

    kind: Kind
    actor: str
    name: str
    wait_id: str
    command_id: str | None
    asks: str
    question: str
    schema: Any
    opened_at_us: int
    expires_at_us: int | None
    deciders: list[str] | None
    answer: str


class Folder:
    """Folds states by the code of the deployment's app, which is loaded when the first one is wanted; runs also without it."""

    def __init__(self, settings: Settings, reader: "LogReader") -> None:
        self._settings = settings
        self._reader = reader
        self._registry: Registry | None = None
        self._loaded = False

    def registry(self) -> "Registry | None":
        if not self._loaded:
            self._registry, self._loaded = registry_of(self._settings, None), True
        return self._registry

    async def state(self, stream: "StreamId") -> Any:
        """As plain JSON; None where there is no code for it."""
        return (await state_view(self._reader, self.registry(), stream)).state

    async def run(self, stream: "StreamId") -> "TaskState | None":
        """The state of a run; None if `stream` is none, or cannot be read."""
        from actors.registry import Registry
        from actors.tasks import Task
        from actors.tasks.state import TaskState
        from events.ids import parse_stream_id

        registry, type_name = self.registry(), parse_stream_id(stream)[0]
        kind = None if registry is None else registry.types.get(type_name)
        if kind is None and type_name == Task.__actor_name__:
            registry = Registry([Task])
        elif kind is None or not issubclass(kind.cls, Task):
            return None
        found = (await state_view(self._reader, registry, stream)).state
        return None if found is None else msgspec.convert(found, TaskState)


async def open_waits(settings: Settings, reader: "LogReader") -> list[OpenWait]:
    """All that people can answer, of all shards, the oldest first."""
    folder = Folder(settings, reader)
    found: list[OpenWait] = []
    for shard in range(reader.shards):
        found += [await _of_turn(settings, reader, folder, wait) for wait in await reader.waits(shard)]
        found += await _of_runs(settings, reader, folder, shard)
    return sorted(found, key=lambda each: each.opened_at_us)


async def _of_turn(settings: Settings, reader: "LogReader", folder: Folder, wait: "WaitEntry") -> OpenWait:
    from actors.journal import PARKED_STEP

    parked = wait.name.startswith(PARKED_STEP)
    name = wait.name.removeprefix(PARKED_STEP)
    schema = None if wait.schema is None else msgspec.json.decode(wait.schema)
    kind, asks, question = ("once" if parked else "wait"), str(wait.stream), f"what became of the step {name}?" if parked else name
    interrupt = None if parked else await _interrupt(folder, wait)
    if interrupt is not None:
        kind, asks, question = "interrupt", f"{wait.stream} {interrupt.get('node', '')}".strip(), _text(interrupt.get("value"))
        question += f" (what was answered before was refused: {interrupt['refused']})" if interrupt.get("refused") else ""
    else:
        entry = await reader.inbox(wait.stream, wait.command_id)
        if entry is not None:
            # From another machine what a command was given does not come along.
            given = f" {entry.args.decode(errors='replace')}" if entry.args else ""
            question = f"{question} ({entry.method}{given})"
    return OpenWait(
        kind=kind, actor=wait.stream, name=name, wait_id=wait.wait_id, command_id=wait.command_id, asks=asks, question=question[:_TEXT_MAX],
        schema=schema, opened_at_us=wait.opened_at_us, expires_at_us=wait.expires_at_us, deciders=None,
        answer=_command(settings, "waits", "answer", wait.wait_id, _json(example_of(schema))),
    )  # fmt: skip


async def _interrupt(folder: Folder, wait: "WaitEntry") -> dict[str, Any] | None:
    """What a graph says of the interrupt that this wait is; None if it is none, or there is no code for its actor."""
    if wait.name != INTERRUPT:
        return None
    state = await folder.state(wait.stream)
    threads = state.get("threads", {}) if isinstance(state, dict) else {}
    return next((each for thread in threads.values() for each in thread.get("waiting", []) if each.get("wait_id") == wait.wait_id), None)


async def _of_runs(settings: Settings, reader: "LogReader", folder: Folder, shard: int) -> list[OpenWait]:
    """What runs put to people: each such wait has a timer that ends it, so no run that is at rest has to be looked at."""
    from actors.tasks import Task
    from events.ids import parse_stream_id

    ends = {Task.approval_late.__name__, Task.answer_late.__name__}
    set_at = {(timer.stream, timer.timer_id): timer.set_at_us for timer in (await reader.under_way(shard)).timers if timer.method in ends}
    found = []
    for stream in dict.fromkeys(stream for stream, _ in set_at):
        run = await folder.run(stream)
        if run is not None:
            key = parse_stream_id(stream)[1]
            found += [
                of_run(settings, stream, each, set_at[stream, each.timer_id])
                for each in waiting_of(run, key) if (stream, each.timer_id) in set_at
            ]  # fmt: skip
    return found


def waiting_of(run: "TaskState", key: str) -> "list[Waiting]":
    """What waits in one run."""
    from actors.tasks.waiting import waiting_in

    return waiting_in(run, key)


def of_run(settings: Settings, stream: str, wait: "Waiting", opened_at_us: int) -> OpenWait:
    """What a run puts to people, as it is listed."""
    wait_id = f"{stream}:{wait.timer_id}"
    type_name, _, key = stream.partition("/")
    words: tuple[str, ...]
    if type_name != "task":
        words = ("waits", "answer", wait_id, _json(example_of(wait.schema)))
    elif wait.kind == "approval":
        words = ("task", "approve", key, "--version", str(wait.number))
    else:
        words = ("task", "answer", key, "...", "--number", str(wait.number))
    return OpenWait(
        kind=wait.kind, actor=stream, name=wait.timer_id, wait_id=wait_id, command_id=None, asks=wait.asks,
        question=wait.question[:_TEXT_MAX], schema=wait.schema, opened_at_us=opened_at_us, expires_at_us=wait.expires_at_us,
        deciders=wait.deciders,
        answer=_command(settings, *words),
    )  # fmt: skip


def row_of(wait: OpenWait) -> dict[str, Any]:
    """As it is printed: times as people read them."""
    from runtime.wire import iso_time

    row = msgspec.structs.asdict(wait)
    opened, expires = row.pop("opened_at_us"), row.pop("expires_at_us")
    return {**row, "opened_at": iso_time(opened), "expires_at": None if expires is None else iso_time(expires)}


def example_of(schema: Any) -> Any:
    """A value of the shape that `schema` asks for, as plain JSON: where a person begins to type. Patterns and formats are his to meet."""
    if not isinstance(schema, dict):
        return _ANYTHING
    return _example(schema, {"#": schema, **schema.get("definitions", {}), **schema.get("$defs", {})}, 0)


def _example(schema: Any, known: dict[str, Any], depth: int) -> Any:
    if not isinstance(schema, dict) or depth > _DEPTH_MAX:
        return _ANYTHING
    if (reference := schema.get("$ref")) is not None:
        return _example(known.get(reference.rpartition("/")[2]), known, depth + 1)
    for choices in ("anyOf", "oneOf", "allOf"):
        if schema.get(choices):
            return _example(schema[choices][0], known, depth + 1)
    if "const" in schema or "default" in schema or schema.get("enum"):
        return schema["const"] if "const" in schema else schema["enum"][0] if schema.get("enum") else schema["default"]
    match schema.get("type"):
        case "object":
            properties = schema.get("properties", {})
            return {name: _example(properties.get(name), known, depth + 1) for name in schema.get("required") or list(properties)[:1]}
        case "array":
            first = schema.get("prefixItems", [])
            more = max(0, min(int(schema.get("minItems", 0)), _ITEMS_MAX) - len(first))
            return [_example(item, known, depth + 1) for item in (*first, *[schema.get("items")] * more)]
        case "boolean":
            return True
        case "integer" | "number":
            return schema.get("minimum", 0)
        case "null":
            return None
        case _:
            return _ANYTHING


def _command(settings: Settings, *words: str) -> str:
    import os

    from ops.exits import command_name

    where = () if Path(settings.data) == default_data(os.environ) else ("--data", str(settings.data))
    return shlex.join([*shlex.split(command_name()), *words, *where])


def _text(value: Any) -> str:
    """What an interrupt says, for people: its question, where it has one by that name."""
    if isinstance(value, dict) and isinstance(value.get("question"), str):
        return str(value["question"])
    return value if isinstance(value, str) else _json(value)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
