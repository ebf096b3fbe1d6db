"""A graph whose interrupts say what may answer them, and that nobody may answer for ever: ``--app tests.support.asking_graph:app``."""

import operator
import os
from typing import Annotated, Any, Literal, TypedDict

from langgraph.graph import START, StateGraph
from langgraph.types import interrupt
from pydantic import BaseModel

from actors.graph import GraphActor
from runtime import App


class Verdict(BaseModel):
    """What a person says of a text."""

    say: Literal["print", "drop"]
    copies: int = 1


class Text(TypedDict, total=False):
    words: Annotated[list[str], operator.add]


def judge(state: Text) -> Text:
    verdict = interrupt("what becomes of it?", response_schema=Verdict)
    return {"words": [f"{verdict.say} {verdict.copies}"]}


def sign(state: Text) -> Text:
    return {"words": [f"signed {interrupt('who signs?')}"]}


builder: Any = StateGraph(Text)
builder.add_node("judge", judge)
builder.add_node("sign", sign)
builder.add_edge(START, "judge")
builder.add_edge("judge", "sign")


class TextActor(GraphActor, name="text"):
    graph = builder
    answers = str
    answer_timeout_s = {"sign": float(os.environ.get("ASKING_GRAPH_SIGN_S", "3600"))}


app = App(actors=[TextActor])
