"""A log of the example app: one conversation that goes well, one that is refused, one that fails."""

import asyncio
from pathlib import Path

from actors import ActorError
from ops.examples.errands import Buyer, Clerk, Shop, app
from ops.settings import name_app
from runtime.local import local_runtime

__all__ = ["APP", "AWKWARD", "CONVERSATION", "Buyer", "Clerk", "Shop", "app", "make_errands", "run_errands"]

APP = "ops.examples.errands:app"
CONVERSATION = "errand-1"
AWKWARD = 'acid </svg> & "smoke"'
"""An argument, and with it an error text, that a careless picture would take for markup."""


async def run_errands(log: Path, acid: str = AWKWARD) -> None:
    """One conversation that goes well, one that is refused, one that fails."""
    async with local_runtime(app, log) as cue:
        await cue.ask("buyer/bob", "buy", command_id=CONVERSATION, item="tea")
        await cue.ask("buyer/bob", "buy", command_id="errand-2", item="bread")
        for command_id, item in (("errand-3", "moon"), ("errand-4", acid)):
            try:
                await cue.ask("buyer/bob", "buy", command_id=command_id, item=item)
            except ActorError:
                continue
            raise AssertionError("it should not have worked")
        await cue.ask("buyer/bob", "forget", command_id="errand-5", item="tea")
        while await cue.ask("clerk/anna", "hello") != "hello":
            pass


def make_errands(data: Path) -> None:
    """A data folder with that log, whose settings name the app."""
    asyncio.run(run_errands(data / "log"))
    name_app(data, APP)
