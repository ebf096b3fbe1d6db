"""A graph in the shape in which LangGraph's documentation shows interrupts, subgraphs and human review ("Interrupts", "Subgraphs"): a node
that calls a subgraph, a subgraph that is a node, an `interrupt` in each, approval by `Command(goto=...)`, `Send`, prints of where it is.
It knows of nothing but LangGraph and is compiled with a checkpointer as there: ``graph.invoke(...)`` runs it as it is.
"""

import operator
from typing import Annotated, Any, Literal, TypedDict

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt


class State(TypedDict):
    topic: str
    names: Annotated[list[str], operator.add]
    draft: str
    decision: str
    mails: Annotated[list[str], operator.add]


class Naming(TypedDict):
    topic: str
    names: Annotated[list[str], operator.add]


class Review(TypedDict):
    draft: str
    decision: str


# A subgraph that is called from a node, with an interrupt in it.


def some_node(state: Naming) -> dict[str, Any]:
    print("some_node")
    return {"names": [f"<{state['topic']}>"]}


def human_node(state: Naming) -> dict[str, Any]:
    print("human_node")
    answer = interrupt("what is your name?")
    return {"names": [answer]}


naming_builder = StateGraph(Naming)
naming_builder.add_node("some_node", some_node)
naming_builder.add_node("human_node", human_node)
naming_builder.add_edge(START, "some_node")
naming_builder.add_edge("some_node", "human_node")
naming = naming_builder.compile()


def parent_node(state: State) -> dict[str, Any]:
    print("parent_node")
    found = naming.invoke({"topic": state["topic"], "names": []})
    return {"names": found["names"]}


def write_draft(state: State) -> dict[str, Any]:
    print("write_draft")
    return {"draft": f"{state['topic']} for {', '.join(state['names'])}"}


# A subgraph that is a node, with an approval in it.


def review(state: Review) -> Command[Literal["polish", "shorten"]]:
    print("review")
    decision = interrupt({"question": "Do you approve of this draft?", "draft": state["draft"]})
    return Command(goto="polish" if decision == "approve" else "shorten", update={"decision": decision})


def polish(state: Review) -> dict[str, Any]:
    print("polish")
    return {"draft": state["draft"].upper()}


def shorten(state: Review) -> dict[str, Any]:
    print("shorten")
    return {"draft": state["draft"][:5]}


review_builder = StateGraph(Review)
review_builder.add_node("review", review)
review_builder.add_node("polish", polish)
review_builder.add_node("shorten", shorten)
review_builder.add_edge(START, "review")


def send_all(state: State) -> list[Send]:
    return [Send("send_mail", {"to": name, "draft": state["draft"]}) for name in state["names"]]


def send_mail(state: Any) -> dict[str, Any]:
    print(f"send_mail {state['to']}")
    return {"mails": [f"{state['to']}: {state['draft']}"]}


builder = StateGraph(State)
builder.add_node("parent_node", parent_node)
builder.add_node("write_draft", write_draft)
builder.add_node("reviewing", review_builder.compile())
builder.add_node("send_mail", send_mail)
builder.add_edge(START, "parent_node")
builder.add_edge("parent_node", "write_draft")
builder.add_edge("write_draft", "reviewing")
builder.add_conditional_edges("reviewing", send_all, ["send_mail"])
builder.add_edge("send_mail", END)

graph = builder.compile(checkpointer=InMemorySaver())
