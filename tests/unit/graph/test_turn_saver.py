"""The checkpointer of a graph inside a turn reads as the one that has a log of its own."""

from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointMetadata, empty_checkpoint

from actors.graph.kinds import Kinds
from actors.graph.kinds_langgraph import BY_TYPE
from actors.graph.turn_saver import TurnSaver


async def note(name: str, fact: Any) -> None:
    """Every fact is recorded at once."""


async def test_a_listing_honours_filter_before_and_limit() -> None:
    saver = TurnSaver("t", Kinds({}, BY_TYPE), [], note)
    config: RunnableConfig = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    configs = []
    said: tuple[CheckpointMetadata, ...] = ({"source": "input", "step": 0}, {"source": "loop", "step": 1}, {"source": "loop", "step": 2})
    for metadata in said:
        config = await saver.aput(config, empty_checkpoint(), metadata, {})
        configs.append(config)
    place: RunnableConfig = {"configurable": {"thread_id": "t"}}

    def steps(**wanted: Any) -> list[int]:
        return [found.metadata["step"] for found in saver.list(place, **wanted)]

    assert steps() == [2, 1, 0]
    assert steps(filter={"source": "loop"}) == [2, 1]
    assert steps(before=configs[1]) == [0]
    assert steps(filter={"source": "loop"}, limit=1) == [2]
