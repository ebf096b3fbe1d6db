"""A LangGraph graph with a subgraph and an interrupt, as an actor. `cuebook up --app ops.examples.graph:app`, then

cuebook ask travel/1 run '{"input": {"city": "Oslo", "notes": []}}'
cuebook waits ls
cuebook waits answer WAIT-ID '"yes"'
cuebook ask travel/1 path
"""

import operator
import os
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.graph import START, StateGraph
from langgraph.types import Send, interrupt

from actors.graph import GraphActor
from runtime import App


class Trip(TypedDict, total=False):
    city: str
    notes: Annotated[list[str], operator.add]
    booked: bool


class Research(TypedDict, total=False):
    city: str
    notes: Annotated[list[str], operator.add]


def did(what: str) -> str:
    """Say that it happened, in a file that `TRIP_LEDGER` names: a real graph would book something here."""
    if ledger := os.environ.get("TRIP_LEDGER"):
        with Path(ledger).open("a") as file:
            file.write(what + "\n")
    return what


def look_up(state: Research) -> dict[str, Any]:
    return {"notes": [did(f"{state['city']}: museums")]}


def compare(state: Research) -> dict[str, Any]:
    return {"notes": [did(f"{state['city']}: prices")]}


def ask_person(state: Research) -> dict[str, Any]:
    answer = interrupt({"question": f"book a trip to {state['city']}?"})
    return {"notes": [did(f"answered {answer}")]}


def book(state: Trip) -> dict[str, Any]:
    return {"booked": "answered yes" in state["notes"], "notes": [did("booked")]}


def spread(state: Trip) -> list[Send]:
    return [Send("tell", {"friend": name}) for name in ("ada", "bob")]


def tell(state: Any) -> dict[str, Any]:
    return {"notes": [did(f"told {state['friend']}")]}


def reset(state: Trip) -> dict[str, Any]:
    return {"notes": [did("planned")]}


research = StateGraph(Research)
research.add_node("look_up", look_up)
research.add_node("compare", compare)
research.add_node("ask_person", ask_person)
research.add_edge(START, "look_up")
research.add_edge(START, "compare")
research.add_edge(["look_up", "compare"], "ask_person")

trip = StateGraph(Trip)
trip.add_node("plan", reset)
trip.add_node("research", research.compile())
trip.add_node("book", book)
trip.add_node("tell", tell)
trip.add_edge(START, "plan")
trip.add_edge("plan", "research")
trip.add_edge("research", "book")
trip.add_conditional_edges("book", spread, ["tell"])


class TravelActor(GraphActor, name="travel"):
    graph = trip
    answers = str


app = App(actors=[TravelActor])
