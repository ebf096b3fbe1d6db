"""The bank of the crash tests, with every way in which work can be under way when a process dies.

Each command has exactly one event of its own, so that an effect that is lost or doubled shows in a balance. Snapshots and flushes of heads
come often, and the process dies where `tests.support.crashing` is asked to.
"""

import os
from pathlib import Path

from actors import command
from events.sqlite import heads
from ops.examples.bank import AccountActor, Deposited
from runtime import App, cell
from tests.support.crashing import arm

EFFECTS = "BUSY_EFFECTS"
"""Environment: the file to which the step of `deposit_slowly` adds a line."""


def effect(name: str) -> int:
    """Something that happens outside: one line, whole even if the process dies."""
    path = os.environ.get(EFFECTS)
    if path is None:
        return 0
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        return os.write(descriptor, f"{name}\n".encode())
    finally:
        os.close(descriptor)


def effects(path: Path) -> list[str]:
    """The lines that were written, in order."""
    return path.read_text().splitlines() if path.exists() else []


class BusyAccountActor(AccountActor, name="busy"):
    """An account with a journal, timers, sends and asks."""

    @command
    async def deposit_slowly(self, cents: int, name: str) -> int:
        """A step before the event: a crash after it must neither lose nor repeat the deposit."""
        await self.step("effect", effect, name)
        self.emit(Deposited(cents=cents))
        return self.state.cents

    @command
    async def deposit_twice(self, cents: int) -> int:
        """One part now, one cent by a timer."""
        self.emit(Deposited(cents=cents))
        self.schedule(0.05, "deposit", cents=1)
        return self.state.cents

    @command
    async def pull(self, cents: int, source: str) -> int:
        """Ask another account, then take what it gave."""
        await self.ref(BusyAccountActor, source).withdraw(cents=cents)
        self.emit(Deposited(cents=cents))
        return self.state.cents


app = App(actors=[AccountActor, BusyAccountActor])
if os.environ.get("BUSY_SMALL"):
    vars(heads)["HEADS_FLUSH_EVENTS"] = 20
    vars(cell)["SNAPSHOT_EVENTS"] = 5
arm()
