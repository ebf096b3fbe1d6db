"""`replay STREAM --step` and `--break-on`: one event after the other, with what each did to the state. No effect, nothing written."""

import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ops.commands.access import open_log
from ops.commands.look import note_view
from ops.event_lines import EventPrinter
from ops.exits import CommandError, Exit
from ops.output import print_json, progress, wants_json
from ops.settings import Settings
from ops.state_views import bold, print_state, print_tree

if TYPE_CHECKING:
    from actors.registry import Registry
    from events.store import LogReader
    from runtime.past.conditions import Condition
    from runtime.past.history import Step

HELP: Final = "n(ext)  b(ack)  c(ontinue to the next break)  g(o to) VERSION  s(tate)  p(atch)  e(vent)  q(uit)"


def condition_of(text: str | None) -> "Condition | None":
    """
    Raises:
        CommandError: USAGE, `text` is no condition.
    """
    from actors.errors import BadPayload
    from runtime.past.conditions import parse_condition

    if text is None:
        return None
    try:
        return parse_condition(text)
    except BadPayload as error:
        raise CommandError(error.message, next_step="for example: --break-on 'state.cents > 100'", code=Exit.USAGE) from error


async def run_steps(
    settings: Settings, registry: "Registry | None", stream: str, to: int | None, condition: "Condition | None", *, step: bool, json: bool
) -> int:
    """Step through `stream`: by hand on a terminal with `step`, else every step at which `condition` holds (None = all) is printed."""
    from events.ids import StreamId
    from runtime.past.states import code_of, head_version, no_code

    async with open_log(settings) as reader:
        name = StreamId(stream)
        await head_version(reader, name)
        if code_of(registry, name) is None:
            progress(f"note: {no_code(registry, name)} (--app MODULE:OBJECT names the code)")
        if step and not wants_json(json) and sys.stdin.isatty():
            await _by_hand(_Walk(reader, registry, name, to), condition)
            return int(Exit.OK)
        return await _all(reader, registry, name, to, condition, json=json)


async def _all(
    reader: "LogReader", registry: "Registry | None", stream: Any, to: int | None, condition: "Condition | None", *, json: bool
) -> int:
    from runtime.past.history import walk
    from runtime.past.states import code_of

    met = 0
    lines = EventPrinter(json=False)
    last: Step | None = None
    async with aclosing(walk(reader, code_of(registry, stream), stream, to=to)) as steps:
        async for step in steps:
            last = step
            if condition is not None and not condition(step.moment()):
                continue
            met += 1
            if wants_json(json):
                print_json({**msgspec.structs.asdict(step.event), "patch": None if step.after is None else step.patch()})
            else:
                lines.print(step.event)
    if last is not None:
        note_view(last)
    if condition is not None:
        progress(f"the condition held at {met} of {last.event.version if last else 0} events")
    return int(Exit.OK if met or condition is None else Exit.NOT_FOUND)


class _Walk:
    """A walk that can also go back: by beginning anew, since a step back is rare and a state per event would not fit."""

    def __init__(self, reader: "LogReader", registry: "Registry | None", stream: Any, to: int | None) -> None:
        from runtime.past.states import code_of

        self._reader = reader
        self._kind = code_of(registry, stream)
        self._stream = stream
        self._to = to
        self._steps: AsyncGenerator[Step, None] | None = None
        self.step: Step | None = None

    async def next(self) -> bool:
        """One event on; False at the end, where it stays."""
        from runtime.past.history import walk

        if self._steps is None:
            self._steps = walk(self._reader, self._kind, self._stream, to=self._to)
        step = await anext(self._steps, None)
        self.step = step or self.step
        return step is not None

    async def go(self, version: int) -> bool:
        """To the event `version`; False if there is none, and then nothing moves."""
        from runtime.past.states import head_version

        end = await head_version(self._reader, self._stream) if self._to is None else self._to
        if not 1 <= version <= end:
            return False
        if self.step is None or version < self.step.event.version:
            await self.close()
            self.step = None
        while self.step is None or self.step.event.version < version:
            if not await self.next():
                return False
        return True

    async def close(self) -> None:
        if self._steps is not None:
            await self._steps.aclose()
        self._steps = None


async def _by_hand(walk: _Walk, condition: "Condition | None") -> None:
    progress(HELP)
    lines = EventPrinter(json=False)

    async def on() -> None:
        while await walk.next():
            if walk.step is not None and (condition is None or condition(walk.step.moment())):
                lines.print(walk.step.event)
                return
        progress("the end")

    async def one() -> None:
        if await walk.next() and walk.step is not None:
            lines.print(walk.step.event)
        else:
            progress("the end")

    try:
        await on()
        while walk.step is not None:
            try:
                said = input(bold(f"{walk.step.event.version}> "))  # noqa: ASYNC250  nothing else runs on this loop
            except EOFError:
                return
            word, _, rest = said.strip().partition(" ")
            if word in ("q", "quit"):
                return
            if word in ("", "n", "next"):
                await one()
            elif word in ("c", "continue"):
                await on()
            elif word in ("b", "back", "g", "go"):
                version = walk.step.event.version - 1 if word.startswith("b") else int(rest) if rest.strip().isdecimal() else 0
                if await walk.go(version):
                    lines.print(walk.step.event)
                else:
                    progress(f"there is no version {version}")
            else:
                _show(word, walk.step, lines)
    finally:
        await walk.close()


def _show(word: str, step: "Step", lines: EventPrinter) -> None:
    shows: dict[str, Callable[[], None]] = {
        "s": lambda: print_state(step.after), "p": lambda: print_tree(step.before, step.patch()), "e": lambda: print_json(step.event),
    }  # fmt: skip
    if word[:1] in shows and word in ("s", "state", "p", "patch", "e", "event"):
        if word[0] != "e" and step.after is None:
            progress("without the actor's code there is no state")
            return
        shows[word[0]]()
        note_view(step)
    else:
        progress(HELP)
