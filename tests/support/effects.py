"""More of the independent judge: steps, sends, timers and tells of `tests.support.busy_bank`, from the log alone (S15, S25, S26, S11).

Like `tests.support.checker` it shares no code with Cuebook.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from tests.support.checker import Asked, Checker, Stored


class Told(NamedTuple):
    """A tell that JetStream has acknowledged, in the order in which they were published to this stream."""

    stream: str
    command_id: str
    cents: int


class Counts(NamedTuple):
    """What a judged log holds. repeated_effects: steps that ran more than once, which a crash may cause and nothing else."""

    events: int
    commands: int
    told: int
    sends: int
    asks: int
    steps: int
    timers: int
    repeated_effects: int


class EffectsChecker(Checker):
    """`problems` says all that is wrong."""

    def judge(self, asked: Iterable[Asked], told: Iterable[Told], effects: Collection[str] | None = None) -> Counts:
        """Everything. effects: lines of the file that steps wrote to, None where there is none.

        The log is at rest: nothing queued, no timer due, no send under way.
        """
        asked, told = list(asked), list(told)
        self.compare(asked, complete=False)
        of_command: dict[tuple[str, str], Stored] = {
            (event.stream, event.command_id): event for event in self.events if event.kind == "state" and event.command_id is not None
        }
        expected = {(each.stream, each.command_id) for each in asked} | {(each.stream, each.command_id) for each in told}
        expected |= self._judge_sends(of_command)
        expected |= self._judge_asks(of_command)
        timers = self._judge_timers(of_command)
        expected |= timers
        self._judge_tells(of_command, told)
        repeated = self._judge_steps(effects)
        for stream, command_id in of_command.keys() - expected:
            self._wrong(f"{stream}: nobody asked for {command_id}")
        kinds = Counter(event.tag for event in self.events)
        return Counts(
            len(self.events), len(asked), len(told), kinds["message.sent"], kinds["ask.completed"], kinds["step.completed"], len(timers),
            repeated,
        )  # fmt: skip

    def _judge_sends(self, of_command: dict[tuple[str, str], Stored]) -> set[tuple[str, str]]:
        """Each send took effect once, and those of one pair in the order in which they were sent."""
        seen: set[tuple[str, str]] = set()
        last: dict[tuple[str, str], int] = defaultdict(int)
        for event in sorted((each for each in self.events if each.tag == "message.sent"), key=lambda each: (each.stream, each.version)):
            receiver, command_id = event.payload["receiver"], event.payload["command_id"]
            effect = of_command.get((receiver, command_id))
            seen.add((receiver, command_id))
            if effect is None:
                self._wrong(f"{event.stream}: the send {command_id} to {receiver} never took effect")
                continue
            if effect.payload["cents"] != event.payload["arguments"]["cents"]:
                self._wrong(f"{receiver}: {command_id} was sent as {event.payload['arguments']}, done was {effect.payload}")
            pair = (event.stream, receiver)
            if effect.version <= last[pair]:
                self._wrong(f"{receiver}: sends of {event.stream} are out of order at version {effect.version}")
            last[pair] = effect.version
        return seen

    def _judge_asks(self, of_command: dict[tuple[str, str], Stored]) -> set[tuple[str, str]]:
        """What an ask was answered is what the other account did, once."""
        seen: set[tuple[str, str]] = set()
        ended: dict[tuple[str, str | None, str], int] = Counter()
        for event in self.events:
            if event.tag == "ask.started":
                seen.add((event.payload["receiver"], event.payload["command_id"]))
                if (event.payload["receiver"], event.payload["command_id"]) not in of_command:
                    self._wrong(f"{event.stream}: the ask {event.payload['command_id']} of {event.payload['receiver']} left nothing there")
            if event.tag in ("ask.completed", "ask.failed"):
                ended[event.stream, event.command_id, event.payload["name"]] += 1
        self._once(ended, "ended")
        return seen

    def _judge_timers(self, of_command: dict[tuple[str, str], Stored]) -> set[tuple[str, str]]:
        """Each timer that was set fired once, and its command took effect once."""
        fired: Counter[tuple[str, str]] = Counter()
        seen: set[tuple[str, str]] = set()
        for event in self.events:
            if event.tag == "timer.fired" and event.command_id is not None:
                fired[event.stream, event.payload["timer_id"]] += 1
                seen.add((event.stream, event.command_id))
                if (event.stream, event.command_id) not in of_command:
                    self._wrong(f"{event.stream}: the timer {event.payload['timer_id']} fired without effect")
        for event in self.events:
            if event.tag == "timer.set" and fired[event.stream, event.payload["timer_id"]] != 1:
                times = fired[event.stream, event.payload["timer_id"]]
                self._wrong(f"{event.stream}: the timer {event.payload['timer_id']} fired {times} times")
        return seen

    def _judge_tells(self, of_command: dict[tuple[str, str], Stored], told: list[Told]) -> None:
        last: dict[str, int] = defaultdict(int)
        for each in told:
            event = of_command.get((each.stream, each.command_id))
            if event is None:
                self._wrong(f"{each.stream}: the tell {each.command_id} was kept by JetStream, but is lost")
                continue
            if event.payload["cents"] != each.cents:
                self._wrong(f"{each.stream}: {each.command_id} was told as {each.cents}, done was {event.payload}")
            if event.version <= last[each.stream]:
                self._wrong(f"{each.stream}: tells are out of order at version {event.version}")
            last[each.stream] = event.version

    def _judge_steps(self, effects: Collection[str] | None) -> int:
        """A finished step is recorded once and was run at least once; returns how many ran more often."""
        ended: dict[tuple[str, str | None, str], int] = Counter()
        names: set[str] = set()
        for event in self.events:
            if event.tag == "step.started":
                names.add(event.payload["args"][0])
            if event.tag in ("step.completed", "step.failed"):
                ended[event.stream, event.command_id, event.payload["name"]] += 1
        self._once(ended, "recorded as ended")
        if effects is None:
            return 0
        ran = Counter(effects)
        for name in names - ran.keys():
            self._wrong(f"the step {name} is recorded, but never ran")
        for name in ran.keys() - names:
            self._wrong(f"the step {name} ran without a recorded intent")
        return sum(times > 1 for times in ran.values())

    def _once(self, ended: dict[tuple[str, str | None, str], int], how: str) -> None:
        for (stream, command_id, name), times in ended.items():
            if times > 1:
                self._wrong(f"{stream}: {name} of {command_id} is {how} {times} times")


def judge(folder: Path, asked: Iterable[Asked], told: Iterable[Told], effects: Collection[str] | None = None) -> tuple[list[str], Counts]:
    """All that is wrong with the log in `folder`, which nobody may be writing, and what it holds."""
    checker = EffectsChecker(folder)
    counts = checker.judge(asked, told, effects)
    return checker.problems, counts
