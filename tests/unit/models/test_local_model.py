"""A small model in this process as a provider: really loaded, really asked. What it says is not judged."""

import asyncio
import json
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("xllamacpp", reason="ops/local.lock is not installed: ops/test --local-model")
pytest.importorskip("langchain_core", reason="needs cuebook[local]")

from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage

from actors.models import local_llamacpp
from actors.models.local_chat import LocalChatModel, LocalClient, open_local
from actors.models.local_llamacpp import SMOLLM2, LoadedModel, LocalModelError, Piece, give_back, take, weights_of
from actors.models.records import Answer, Failure, Message, Request, ToolSpec
from events.errors import ConfigurationError

STORY = "Write a very long story about a village by the sea."
PATIENCE_S = 60.0
"""For what takes a second on a machine that does nothing else."""


def asked(text: str, *, max_tokens: int = 12, schema: dict[str, object] | None = None, tools: tuple[ToolSpec, ...] = ()) -> Request:
    return Request(messages=(Message(role="user", content=text),), max_tokens=max_tokens, json_schema=schema, tools=tools, temperature=0.0)


def body(text: str, max_tokens: int = 12) -> Piece:
    return {"messages": [{"role": "user", "content": text}], "max_tokens": max_tokens, "temperature": 0}


async def cancelled(task: "asyncio.Task[Any]") -> None:
    """Cancel it and see it end, and soon."""
    task.cancel()
    await asyncio.wait([task], timeout=PATIENCE_S)
    assert task.cancelled()


@pytest.fixture(scope="module")
def model() -> Iterator[LoadedModel]:
    loaded = take(SMOLLM2)
    yield loaded
    give_back(loaded)


@pytest.fixture
async def client(model: LoadedModel) -> AsyncIterator[LocalClient]:
    made = open_local("tiny", SMOLLM2)
    yield made
    await made.close()


async def test_an_answer_comes_in_pieces_with_its_tokens_and_why_it_ended(client: LocalClient) -> None:
    said: list[str] = []
    async with asyncio.timeout(PATIENCE_S):
        answer = await client.call(asked("Say hello to Ann."), "key", said.append)
    assert isinstance(answer, Answer), answer
    assert answer.text == "".join(said) != ""
    assert len([piece for piece in said if piece]) > 3
    assert (answer.provider, answer.stop_reason, answer.usage.output_tokens) == ("tiny", "length", 12)
    assert answer.usage.input_tokens > 5
    assert answer.model == weights_of(SMOLLM2).stem


async def test_it_can_be_held_to_a_schema(client: LocalClient) -> None:
    """A model this small would never give valid JSON by itself."""
    properties = {"blue": {"type": "boolean"}, "shade": {"type": "string", "maxLength": 12}}
    schema: dict[str, object] = {"type": "object", "properties": properties, "required": ["blue", "shade"], "additionalProperties": False}
    async with asyncio.timeout(PATIENCE_S):
        answer = await client.call(asked("Is the sky blue?", max_tokens=80, schema=schema), "key", lambda _: None)
    assert isinstance(answer, Answer), answer
    assert set(json.loads(answer.text)) == {"blue", "shade"}


async def test_what_it_refuses_is_typed_and_permanent(client: LocalClient) -> None:
    too_long = await client.call(asked("word " * 5_000), "key", lambda _: None)
    assert isinstance(too_long, Failure)
    assert (too_long.kind, too_long.code) == ("permanent", "http_400")
    assert "context size" in too_long.message
    tool = ToolSpec(name="weather", description="", parameters={"type": "object"})
    foreign = await client.call(asked("Hi", tools=(tool,)), "key", lambda _: None)
    assert isinstance(foreign, Failure)
    assert (foreign.kind, foreign.code) == ("permanent", "tools")


async def test_cancelling_stops_it_while_it_speaks(client: LocalClient) -> None:
    speaks = asyncio.Event()

    def hear(text: str) -> None:
        if text:
            speaks.set()

    asking = asyncio.ensure_future(client.call(asked(STORY, max_tokens=4_000), "key", hear))
    async with asyncio.timeout(PATIENCE_S):
        await speaks.wait()
    await cancelled(asking)
    async with asyncio.timeout(PATIENCE_S):
        # The thread is free again: 4,000 tokens would take it minutes.
        assert isinstance(await client.call(asked("Hi", max_tokens=2), "key", lambda _: None), Answer)


async def test_giving_up_stops_it_while_it_reads(model: LoadedModel) -> None:
    question = body("A village by the sea had " + "one boat and " * 900, max_tokens=1)
    async with asyncio.timeout(PATIENCE_S):
        stream = model.stream(question)
        async for piece in stream:
            if piece["prompt_progress"]["processed"] > 0:
                break
        await stream.aclose()
        again = model.stream(question)
        kept = (await anext(again))["prompt_progress"]
        await again.aclose()
    assert kept["cache"] < kept["total"] / 2, "it read on after it had been given up"


async def test_who_waits_for_its_turn_can_go(model: LoadedModel) -> None:
    """One question at a time; one that is given up before its turn does not wait for the one before it."""
    before = threading.Event()
    model._thread.submit(before.wait)
    waiting = asyncio.ensure_future(anext(model.stream(body("Hi"))))
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not model._thread._work_queue.qsize():
                await asyncio.sleep(0)
        await cancelled(waiting)
    finally:
        before.set()


async def test_the_event_loop_goes_on_meanwhile(model: LoadedModel) -> None:
    turns = 0
    asking = asyncio.ensure_future(anext(model.stream(body("Say hello."))))
    while not asking.done():
        turns += 1
        await asyncio.sleep(0.001)  # a real clock: a loop that is held up would not come back before the answer is there
    assert turns > 1
    await asking


async def test_a_process_loads_a_model_once_and_lets_go_of_it(model: LoadedModel, tmp_path: Path) -> None:
    assert take(str(weights_of(SMOLLM2))) is model
    give_back(model)
    place = tmp_path / "other.gguf"
    place.write_bytes(b"no model")
    other = take(str(place))
    assert other is not model
    assert take(str(place)) is other
    give_back(other)
    with pytest.raises(ConfigurationError, match=r"cannot load .*other\.gguf"):
        await anext(other.stream(body("Hi")))
    give_back(other)
    again = take(str(place))
    assert again is not other
    give_back(again)


async def test_a_failure_inside_ends_the_call_and_not_the_model(model: LoadedModel) -> None:
    with pytest.raises(LocalModelError) as refused:
        await anext(model.stream({"messages": "none"}))
    assert refused.value.status_code == 400
    assert isinstance(await anext(model.stream(body("Hi"))), dict)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_it_opens_no_port_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """llama.cpp insists on a server of its own, which anybody on this machine could ask."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(local_llamacpp, "CONTEXT_TOKENS", 256)
    before = listening()
    own = LoadedModel(weights_of(SMOLLM2))
    try:
        async with asyncio.timeout(PATIENCE_S):
            await anext(own.stream(body("Hi", max_tokens=1)))
        assert listening() == before
        assert list(tmp_path.iterdir()) == []
    finally:
        own.close()


def listening() -> set[str]:
    """The TCP sockets of this process that anybody can connect to, by inode."""
    ours = {link.readlink().name for link in Path("/proc/self/fd").iterdir() if link.is_symlink()}
    lines = [line.split() for table in ("tcp", "tcp6") for line in Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]]
    return {fields[9] for fields in lines if fields[3] == "0A" and f"socket:[{fields[9]}]" in ours}


async def test_it_is_a_chat_model_of_langchain(model: LoadedModel) -> None:
    chat = LocalChatModel()
    try:
        streamed = [piece async for piece in chat.astream([HumanMessage("Say hello.")], max_tokens=6, temperature=0)]
        assert len([piece for piece in streamed if piece.content]) > 2
        whole = streamed[0]
        for piece in streamed[1:]:
            assert isinstance(piece, AIMessageChunk)
            whole = whole + piece
        invoked = await asyncio.to_thread(chat.invoke, [HumanMessage("Say hello.")], max_tokens=6, temperature=0)
        waited = await chat.ainvoke([HumanMessage("Say hello.")], max_tokens=6, temperature=0)
        for message in (whole, invoked, waited):
            assert isinstance(message, AIMessage)
            assert message.content
            assert message.usage_metadata is not None
            assert message.usage_metadata["output_tokens"] == 6
    finally:
        chat.close()
        chat.close()
    with pytest.raises(RuntimeError, match="closed"):
        await chat.ainvoke([HumanMessage("Say hello.")])
