"""A LangChain agent as its documentation shows one: ``create_agent`` with plain functions as tools. It knows of nothing of ours; the model
is given. What the tools really do stands in the file that `AGENT_LEDGER` names."""

import os
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.language_models import BaseChatModel


def done(what: str) -> None:
    with Path(os.environ["AGENT_LEDGER"]).open("a") as file:
        file.write(what + "\n")


async def answer() -> None:
    """Whoever rents out the rooms answers."""


def weather(city: str) -> str:
    """The weather in a city."""
    done(f"weather {city}")
    return f"rain in {city}"


async def book(city: str, nights: int = 1) -> str:
    """Book a hotel."""
    done(f"book {city} {nights}")
    await answer()
    if city == "Atlantis":
        raise LookupError("no such city")
    return f"booked {nights} in {city}"


def agent(model: BaseChatModel) -> Any:
    return create_agent(model, tools=[weather, book], system_prompt="You plan trips.")


def careful_agent(model: BaseChatModel) -> Any:
    """A person looks at each booking before it is done."""
    return create_agent(model, tools=[weather, book], middleware=[HumanInTheLoopMiddleware(interrupt_on={"book": True})])
