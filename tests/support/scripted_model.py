"""A model provider that follows a script: a real HTTP server on a free loopback port that speaks the protocols of OpenAI (and those who
copied it, Perplexity among them) and Anthropic, whole or streamed, right or broken - and keeps a ledger of who asked what under which key.
"""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Self

import msgspec

Headers = Mapping[str, str]


class Say(msgspec.Struct, frozen=True, kw_only=True):
    """One answer of the script, or one failure.

    status: other than 200 = an error reply. delay_s: before the first byte; pause_s: between pieces of a stream. cut_after: the
    connection is closed after so many pieces. hold_after: so many pieces are said, and the next ones once `ScriptedModel.go` is set.
    garbage: bytes that are no answer. tools: (name, arguments) that the model asks for.
    """

    text: str = ""
    tools: tuple[tuple[str, dict[str, Any]], ...] = ()
    status: int = 200
    retry_after: str | None = None
    delay_s: float = 0.0
    pause_s: float = 0.0
    cut_after: int | None = None
    hold_after: int | None = None
    garbage: bool = False
    tokens: tuple[int, int] = (10, 5)
    citations: tuple[str, ...] = ()


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the ledger. `done` = the whole answer was handed to the socket. at_us: when the request had come in, by the wall clock."""

    path: str
    key: str
    body: dict[str, Any]
    done: bool
    at_us: int


class ScriptedModel:
    """Says what `script` says, in order, and the last of it for ever; a function is asked each time, with the request's body."""

    def __init__(self, *script: Say | Callable[[dict[str, Any]], Say]) -> None:
        self.script = list(script)
        self.ledger: list[Entry] = []
        self.asked = asyncio.Event()
        """Set when the next request has come in; clear it to wait for another."""
        self.go = asyncio.Event()
        """Set by a test, to let an answer go on that was held."""
        self.hung_up = asyncio.Event()
        """Set when a client went away before it had its answer."""
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()

    @property
    def url(self) -> str:
        """Without a path: OpenAI's clients want ``/v1`` behind it."""
        if self._server is None:
            raise RuntimeError("not started")
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"http://{host}:{port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while await self._one(reader, writer):
                pass
        writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if ":" in line)}
        body = json.loads(await reader.readexactly(int(headers.get("content-length", 0))) or b"{}")
        path = first.split(" ")[1]
        at_us = time.time_ns() // 1_000
        said = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        say = said if isinstance(said, Say) else said(body)
        self.asked.set()
        gone = asyncio.ensure_future(reader.read(1))
        answer = asyncio.ensure_future(self._answer(writer, path, body, say))
        await asyncio.wait({gone, answer}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            answer.cancel()
            self.hung_up.set()
        with suppress(asyncio.CancelledError, ConnectionError):
            await answer
        done = answer.done() and not answer.cancelled() and answer.exception() is None and say.cut_after is None and say.status == 200
        self.ledger.append(Entry(path=path, key=headers.get("idempotency-key", ""), body=body, done=done, at_us=at_us))
        # The byte that was read ahead would be missing from the next request: one connection, one request.
        gone.cancel()
        return False

    async def _answer(self, writer: asyncio.StreamWriter, path: str, body: dict[str, Any], say: Say) -> None:
        if say.delay_s:
            await asyncio.sleep(say.delay_s)
        if say.status != 200:
            more = {"retry-after": say.retry_after} if say.retry_after else {}
            error = {"error": {"type": "scripted", "message": f"scripted {say.status}", "code": "scripted"}, "type": "error"}
            await self._whole(writer, say.status, json.dumps(error).encode(), more)
        elif say.garbage:
            await self._whole(writer, 200, b"\x00\xff<html>garbage", {"content-type": "application/json"})
        elif body.get("stream"):
            events = _anthropic_stream(say) if "messages" in path.rsplit("/", 1)[-1] else _openai_stream(say, body)
            await self._stream(writer, events, say)
        else:
            whole = _anthropic(say) if "messages" in path.rsplit("/", 1)[-1] else _openai(say)
            await self._whole(writer, 200, json.dumps(whole).encode(), {})

    async def _whole(self, writer: asyncio.StreamWriter, status: int, body: bytes, more: Headers) -> None:
        headers = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close", **more}
        head = f"HTTP/1.1 {status} X\r\n".encode() + b"".join(f"{k}: {v}\r\n".encode() for k, v in headers.items())
        await _send(writer, head + b"\r\n" + body)

    async def _stream(self, writer: asyncio.StreamWriter, events: list[bytes], say: Say) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
        await _send(writer, head)
        for number, event in enumerate(events):
            if number == say.hold_after:
                await self.go.wait()
            if say.cut_after is not None and number >= say.cut_after:
                await writer.drain()
                return
            await _send(writer, f"{len(event):x}\r\n".encode() + event + b"\r\n")
            if say.pause_s:
                await asyncio.sleep(say.pause_s)
        await _send(writer, b"0\r\n\r\n")


async def _send(writer: asyncio.StreamWriter, block: bytes) -> None:
    if writer.is_closing():
        # uvloop raises RuntimeError where asyncio's own transports say nothing.
        raise ConnectionResetError("the client is gone")
    writer.write(block)
    await writer.drain()


def _pieces(text: str) -> list[str]:
    """Words with the space before them, as models stream them."""
    words = text.split(" ")
    return [word if number == 0 else f" {word}" for number, word in enumerate(words)] if text else []


def _sse(value: Any, name: str | None = None) -> bytes:
    return (f"event: {name}\n" if name else "").encode() + b"data: " + json.dumps(value).encode() + b"\n\n"


def _openai(say: Say) -> dict[str, Any]:
    calls = [
        {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        for number, (name, arguments) in enumerate(say.tools)
    ]
    message: dict[str, Any] = {"role": "assistant", "content": say.text or None}
    if calls:
        message["tool_calls"] = calls
    return {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "scripted-1", "citations": list(say.citations),
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop"}],
        "usage": _openai_usage(say),
    }  # fmt: skip


def _openai_usage(say: Say) -> dict[str, int]:
    return {"prompt_tokens": say.tokens[0], "completion_tokens": say.tokens[1], "total_tokens": sum(say.tokens)}


def _openai_stream(say: Say, body: dict[str, Any]) -> list[bytes]:
    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return {
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "scripted-1", "citations": list(say.citations),
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        }  # fmt: skip

    events = [_sse(chunk({"role": "assistant", "content": ""}))]
    events += [_sse(chunk({"content": piece})) for piece in _pieces(say.text)]
    for number, (name, arguments) in enumerate(say.tools):
        function = {"name": name, "arguments": json.dumps(arguments)}
        call = {"index": number, "id": f"call_{number}", "type": "function", "function": function}
        events.append(_sse(chunk({"tool_calls": [call]})))
    last = chunk({}, "tool_calls" if say.tools else "stop")
    if (body.get("stream_options") or {}).get("include_usage"):
        events.append(_sse(last))
        last = {**chunk({}), "choices": [], "usage": _openai_usage(say)}
    elif say.citations:
        last["usage"] = _openai_usage(say)
    return [*events, _sse(last), b"data: [DONE]\n\n"]


def _anthropic_content(say: Say) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = [{"type": "text", "text": say.text}] if say.text else []
    for number, (name, arguments) in enumerate(say.tools):
        content.append({"type": "tool_use", "id": f"toolu_{number}", "name": name, "input": arguments})
    return content


def _anthropic(say: Say) -> dict[str, Any]:
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "scripted-1", "content": _anthropic_content(say),
        "stop_reason": "tool_use" if say.tools else "end_turn", "stop_sequence": None,
        "usage": {"input_tokens": say.tokens[0], "output_tokens": say.tokens[1]},
    }  # fmt: skip


def _anthropic_stream(say: Say) -> list[bytes]:
    start = {**_anthropic(say), "content": [], "stop_reason": None, "usage": {"input_tokens": say.tokens[0], "output_tokens": 1}}
    events = [_sse({"type": "message_start", "message": start}, "message_start")]
    for index, block in enumerate(_anthropic_content(say)):
        text = block["type"] == "text"
        empty = {"type": "text", "text": ""} if text else {**block, "input": {}}
        events.append(_sse({"type": "content_block_start", "index": index, "content_block": empty}, "content_block_start"))
        deltas: list[dict[str, Any]] = (
            [{"type": "text_delta", "text": piece} for piece in _pieces(say.text)]
            if text
            else [{"type": "input_json_delta", "partial_json": json.dumps(block["input"])}]
        )
        events += [_sse({"type": "content_block_delta", "index": index, "delta": delta}, "content_block_delta") for delta in deltas]
        events.append(_sse({"type": "content_block_stop", "index": index}, "content_block_stop"))
    ended = {"stop_reason": "tool_use" if say.tools else "end_turn", "stop_sequence": None}
    usage = {"input_tokens": say.tokens[0], "output_tokens": say.tokens[1]}
    events.append(_sse({"type": "message_delta", "delta": ended, "usage": usage}, "message_delta"))
    return [*events, _sse({"type": "message_stop"}, "message_stop")]


