"""An actor whose step pays at a service outside: a ledger file with one line per payment, the idempotency key that came with it.

``python -m tests.support.payments LOG POLICY [SECONDS]`` gives one command to it in a process of its own, which dies where
`tests.support.crashing` is asked to. SECONDS: the deadline of the step.
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from actors import Actor, Event, State, StepFailed, command, idempotency_key, query
from runtime.app import App
from runtime.local import local_runtime
from tests.support.crashing import arm

LEDGER = "PAYMENTS_LEDGER"
COMMAND = "pay-1"
STREAM = "payer/p"


def lines() -> list[str]:
    path = Path(os.environ[LEDGER])
    return path.read_text().splitlines() if path.exists() else []


def pay(cents: int) -> str:
    """In a thread: the key is the step's there too."""
    descriptor = os.open(os.environ[LEDGER], os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, f"{idempotency_key()}\n".encode())
    finally:
        os.close(descriptor)
    return f"receipt {cents}"


async def paid(cents: int) -> str | None:
    """What the service says of a payment under this key."""
    return f"found {cents}" if idempotency_key() in lines() else None


async def cannot_tell(cents: int) -> str | None:
    raise ConnectionError("the service is away")


class Paid(State):
    receipts: list[str] = []


class Receipt(Event[Paid], tag="payer.receipt"):
    text: str

    def apply(self, state: Paid) -> None:
        state.receipts.append(self.text)


class Payer(Actor[Paid], name="payer"):
    @command
    async def pay(self, policy: str, within_s: float | None = None) -> str:
        more: dict[str, Any] = {"recovery": policy}
        if policy == "verify":
            more["verify"] = paid
        elif policy == "blind":
            more = {"recovery": "verify", "verify": cannot_tell}
        try:
            receipt = await self.step("pay", pay, 5, timeout_s=within_s, **more)
        except StepFailed as error:
            receipt = f"failed: {error.fields['type']}"
        self.emit(Receipt(text=receipt))
        return receipt

    @query
    def receipts(self) -> list[str]:
        return self.state.receipts


app = App(actors=[Payer])


async def main(log: Path, policy: str, within_s: float | None) -> None:
    arm()
    async with local_runtime(app, log) as runtime:
        bound = {} if within_s is None else {"within_s": within_s}
        await runtime.ask(STREAM, "pay", command_id=COMMAND, policy=policy, **bound)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]) if len(sys.argv) > 3 else None))
