"""The real client libraries against a real HTTP server that speaks the real protocols, right and wrong."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langchain_openai", reason="needs cuebook[models]")
pytest.importorskip("langchain_anthropic", reason="needs cuebook[models]")
pytest.importorskip("langchain_perplexity", reason="needs cuebook[models]")

from actors.errors import Unavailable
from actors.models.langchain_models import Endpoint, Kind, LangChainClient, open_client
from actors.models.records import Answer, Failure, Message, Request, ToolCall, ToolSpec
from actors.models.registry import Configured, ProviderRegistry
from runtime.local import local_runtime
from runtime.tasks import Tasks
from tests.support.scripted_model import Say, ScriptedModel
from tests.unit.models.support import APP

KINDS: tuple[Kind, ...] = ("openai", "anthropic", "perplexity")
ASKED = Request(messages=(Message(role="system", content="Be brief."), Message(role="user", content="What colour is the sky?")))


def client_of(kind: Kind, server: ScriptedModel, timeout_s: float = 10.0) -> LangChainClient:
    url = f"{server.url}/v1" if kind == "openai" else server.url
    return open_client(kind, Endpoint(kind=kind, model="m", base_url=url), lambda: "sk-test", timeout_s)


async def ask(kind: Kind, server: ScriptedModel, request: Request = ASKED, timeout_s: float = 10.0) -> tuple[Answer | Failure, list[str]]:
    said: list[str] = []
    client = client_of(kind, server, timeout_s)
    try:
        return await client.call(request, "key-1", said.append), said
    finally:
        await client.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_an_answer_streams_with_its_tokens_under_its_key(kind: Kind) -> None:
    async with ScriptedModel(Say(text="The sky is blue", tokens=(12, 4), citations=("https://sky.example",))) as server:
        answer, said = await ask(kind, server)
        assert isinstance(answer, Answer), answer
        assert answer.text == "The sky is blue" == "".join(said)
        assert len([piece for piece in said if piece]) == 4
        assert (answer.usage.input_tokens, answer.usage.output_tokens) == (12, 4)
        assert answer.stop_reason in {"stop", "end_turn"}
        assert answer.citations == (("https://sky.example",) if kind == "perplexity" else ())
        assert [entry.key for entry in server.ledger] == ["key-1"]


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
async def test_tool_calls_go_both_ways(kind: Kind) -> None:
    tool = ToolSpec(name="weather", description="of a city", parameters={"type": "object", "properties": {"city": {"type": "string"}}})
    async with ScriptedModel(Say(tools=(("weather", {"city": "Ulm"}),)), Say(text="It rains")) as server:
        first, _ = await ask(kind, server, Request(messages=ASKED.messages, tools=(tool,)))
        assert isinstance(first, Answer), first
        assert [(call.name, call.arguments) for call in first.tool_calls] == [("weather", {"city": "Ulm"})]
        call = ToolCall(id=first.tool_calls[0].id, name="weather", arguments={"city": "Ulm"})
        said = Message(role="assistant", content="", tool_calls=(call,))
        result = Message(role="tool", content="rain", tool_call_id=first.tool_calls[0].id)
        second, _ = await ask(kind, server, Request(messages=(*ASKED.messages, said, result), tools=(tool,)))
        assert isinstance(second, Answer), second
        assert second.text == "It rains"
        assert "rain" in str(server.ledger[1].body["messages"][-1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("say", "what", "code"),
    [
        (Say(status=401), "permanent", "http_401"),
        (Say(status=400), "permanent", "http_400"),
        (Say(status=404), "permanent", "http_404"),
        (Say(status=429, retry_after="7"), "transient", "http_429"),
        (Say(status=500), "transient", "http_500"),
        (Say(status=503), "transient", "http_503"),
        (Say(status=529), "transient", "http_529"),
        (Say(text="The sky is blue", cut_after=3), "transient", ""),
        (Say(text="x", garbage=True), "transient", ""),
        (Say(text="late", delay_s=30), "transient", "timeout"),
    ],
    ids=lambda value: value.text + str(value.status) if isinstance(value, Say) else "",
)
async def test_every_failure_is_typed_and_tried_once(kind: Kind, say: Say, what: str, code: str) -> None:
    async with ScriptedModel(say) as server:
        ended, _ = await ask(kind, server, timeout_s=1.0)
        assert isinstance(ended, Failure), ended
        assert (ended.kind, ended.code) == (what, code or ended.code)
        assert ended.retry_after_s == (7.0 if say.retry_after else None)
        assert "sk-test" not in ended.message
        await asyncio.sleep(0)
        assert len(server.ledger) <= 1


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_that_is_cut_is_no_answer(kind: Kind) -> None:
    async with ScriptedModel(Say(text="one two three four five", cut_after=4)) as server:
        ended, said = await ask(kind, server)
        assert isinstance(ended, Failure)
        assert "".join(said).startswith("one")


@pytest.mark.parametrize("kind", KINDS)
async def test_nobody_listening_is_a_failure_of_the_connection(kind: Kind) -> None:
    server = ScriptedModel(Say(text="x"))
    async with server:
        client = client_of(kind, server)
    ended = await client.call(ASKED, "key", lambda _: None)
    await client.close()
    assert isinstance(ended, Failure)
    assert (ended.kind, ended.code) == ("transient", "connection")


@pytest.mark.parametrize("kind", KINDS)
async def test_cancelling_ends_the_request(kind: Kind) -> None:
    async with ScriptedModel(Say(text="one two three", pause_s=60)) as server:
        said: list[str] = []
        client = client_of(kind, server, 120.0)
        task: asyncio.Task[Any] = asyncio.ensure_future(client.call(ASKED, "key", said.append))
        async with asyncio.timeout(30):
            await server.asked.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await server.hung_up.wait()
        await client.close()


async def test_a_dated_retry_after_counts_from_the_date_of_the_reply() -> None:
    from actors.models.langchain_models import _retry_after

    headers = {"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT", "date": "Fri, 31 Dec 1999 23:59:29 GMT"}
    assert _retry_after(headers) == 30.0
    assert _retry_after({"retry-after": "soon"}) is None


async def test_s15_the_deadline_of_a_call_closes_its_connection(tmp_path: Path) -> None:
    async with ScriptedModel(Say(text="too late", delay_s=60.0)) as server:
        registry = ProviderRegistry({"main": Configured(client=client_of("openai", server, 60.0))}, Tasks().spawn)
        async with local_runtime(APP, tmp_path, shards=1, models=registry) as runtime:
            with pytest.raises(Unavailable) as told:
                await runtime.ask("agent/a", "ask", text="?", deadline_s=3.0)
            assert told.value.fields["reason"] == "deadline"
            async with asyncio.timeout(5):
                await server.hung_up.wait()
        await registry.close()
        assert len(server.ledger) == 1
