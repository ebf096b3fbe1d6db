"""One line per agent, at least every two seconds, from the chunks that a review sends while it works."""

from collections.abc import Mapping
from typing import Any, Final

EVERY_S: Final = 1.5
"""How often lines are printed; the promise is two seconds, the rest is for a busy machine."""


class _Agent:
    """What is known of one agent since its first chunk."""

    __slots__ = ("began", "done", "first_done", "open", "shown", "total", "unit", "what")

    def __init__(self, now: float, done: int) -> None:
        self.began = now
        self.first_done = done
        self.what = ""
        self.unit = ""
        self.done = self.total = 0
        self.open = True
        self.shown = False

    def rate(self, now: float) -> float:
        return (self.done - self.first_done) / max(now - self.began, 0.001)


class ReviewProgress:
    """Takes chunks in, gives lines out. Times are seconds of any clock that only goes forward."""

    def __init__(self) -> None:
        self._agents: dict[str, _Agent] = {}

    def take(self, agent: str, data: Mapping[str, Any] | None, now: float) -> None:
        """One chunk of the actor type `agent`; None is the end of one of its turns."""
        if data is None:
            if (known := self._agents.get(agent)) is not None:
                known.open = False
            return
        done = _number(data.get("done"))
        known = self._agents.setdefault(agent, _Agent(now, done))
        known.done, known.total = done, _number(data.get("total"))
        known.what, known.unit = str(data.get("what", "")), str(data.get("unit", ""))
        known.open, known.shown = True, False

    def lines(self, now: float) -> list[str]:
        """A line for each agent that works, and for each that ended since the last call."""
        found = []
        for name, agent in self._agents.items():
            if agent.shown and not agent.open and agent.done >= agent.total:
                continue
            agent.shown = True
            found.append(_line(name, agent, now))
        return found


def _line(name: str, agent: _Agent, now: float) -> str:
    count = f"{agent.done:,}/{agent.total:,} {agent.unit}" if agent.total else ""
    # A rate of a few slow things, or over less than a second, says nothing.
    rate = f"{agent.rate(now):,.0f}/s" if agent.unit == "results" and now - agent.began >= 1.0 and agent.done > agent.first_done else ""
    # A path may hold escape sequences; printed raw they would steer the terminal.
    what = "".join(c if c.isprintable() else repr(c)[1:-1] for c in agent.what)
    return f"{name:<13}{count:<21}{rate:>7}  {_shortened(what, 70)}".rstrip()


def _shortened(text: str, characters: int) -> str:
    """`text` without its middle if it is too long: of a path, the end tells most."""
    return text if len(text) <= characters else f"{text[:20]}…{text[-(characters - 21) :]}"


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
