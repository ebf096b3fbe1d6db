"""Claude Code as a provider: the real program where it is installed, else a script in its place that prints what the program prints."""

import asyncio
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from actors.models.claude_code import ClaudeCodeClient
from actors.models.records import Answer, Failure, Message, Request, ToolSpec
from tests.support.pids import gone, until
from tests.support.scripted_model import Say, ScriptedModel

ASKED = Request(messages=(Message(role="system", content="Be brief."), Message(role="user", content="What colour is the sky?")))
REAL = os.environ.get("CUEBOOK_TEST_CLAUDE") or shutil.which("claude")

# As version 2.1.197 printed it, shortened to what is read.
PRINTED: list[dict[str, Any]] = [
    {"type": "system", "subtype": "init"},
    {"type": "stream_event", "event": {"type": "message_start"}},
    {"type": "stream_event", "event": {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "The sky"}}},
    {"type": "stream_event", "event": {"type": "content_block_delta", "delta": {"type": "text_delta", "text": " is blue"}}},
    {
        "type": "result", "subtype": "success", "is_error": False, "api_error_status": None, "result": "The sky is blue",
        "stop_reason": "end_turn", "modelUsage": {"m": {"inputTokens": 12, "outputTokens": 4}},
    },
]  # fmt: skip


def program(folder: Path, body: str) -> str:
    place = folder / "claude"
    place.write_text(f"#!{sys.executable}\nimport json, os, sys, time\n{body}\n")
    place.chmod(0o755)
    return str(place)


def printing(folder: Path, lines: list[dict[str, Any]], code: int = 0) -> str:
    return program(folder, f"for line in {lines!r}:\n    print(json.dumps(line), flush=True)\nsys.exit({code})")


def failed(status: int | None, text: str = "no") -> list[dict[str, Any]]:
    return [{"type": "result", "is_error": True, "api_error_status": status, "result": text}]


async def ask(client: ClaudeCodeClient, request: Request = ASKED) -> tuple[Answer | Failure, list[str]]:
    said: list[str] = []
    async with asyncio.timeout(60):
        return await client.call(request, "key", said.append), said


async def test_an_answer(tmp_path: Path) -> None:
    ended, said = await ask(ClaudeCodeClient("claude", "sonnet", program=printing(tmp_path, PRINTED)))
    assert isinstance(ended, Answer)
    assert ended.text == "".join(said) == "The sky is blue"
    assert (ended.usage.input_tokens, ended.usage.output_tokens) == (12, 4)


@pytest.mark.parametrize(
    ("lines", "code", "kind", "failure"),
    [
        (failed(401), 1, "permanent", "http_401"),
        (failed(429), 1, "transient", "http_429"),
        (failed(529), 1, "transient", "http_529"),
        (failed(None, "API Error: Failed to parse JSON"), 1, "transient", "program"),
        (failed(None, "Not logged in"), 1, "permanent", "program"),
        (PRINTED[:3], 0, "transient", "cut"),
        ([], 1, "transient", "cut"),
    ],
)
async def test_every_failure_is_typed(tmp_path: Path, lines: list[dict[str, Any]], code: int, kind: str, failure: str) -> None:
    ended, _ = await ask(ClaudeCodeClient("claude", "sonnet", program=printing(tmp_path, lines, code)))
    assert isinstance(ended, Failure)
    assert (ended.kind, ended.code) == (kind, failure)


async def test_absent_program_and_foreign_tools(tmp_path: Path) -> None:
    ended, _ = await ask(ClaudeCodeClient("claude", "sonnet", program=str(tmp_path / "none")))
    assert isinstance(ended, Failure)
    assert ended.code == "not_installed"
    tools = Request(messages=ASKED.messages, tools=(ToolSpec(name="t", description="", parameters={}),))
    ended, _ = await ask(ClaudeCodeClient("claude", "sonnet", program=printing(tmp_path, PRINTED)), tools)
    assert isinstance(ended, Failure)
    assert ended.code == "tools"


async def test_it_is_told_by_its_input_and_knows_none_of_our_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUEBOOK_TOKEN", "canary")
    body = """
seen = {"args": sys.argv[1:], "env": dict(os.environ), "stdin": sys.stdin.read(), "cwd": os.listdir(".")}
print(json.dumps({"type": "result", "is_error": False, "result": json.dumps(seen)}))
"""
    ended, _ = await ask(ClaudeCodeClient("claude", "sonnet", program=program(tmp_path, body), api_key=lambda: "sk-1"))
    assert isinstance(ended, Answer)
    seen = json.loads(ended.text)
    assert seen["stdin"] == "What colour is the sky?"
    assert "What colour" not in str(seen["args"])
    assert "canary" not in str(seen["env"])
    assert seen["env"]["ANTHROPIC_API_KEY"] == "sk-1"
    assert seen["cwd"] == []


async def test_cancelling_leaves_no_process(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    body = f"""
import signal, subprocess
signal.signal(signal.SIGTERM, signal.SIG_IGN)
other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open({str(pids)!r}, "w").write(f"{{os.getpid()}} {{other.pid}}\\n")
time.sleep(600)
"""
    task = asyncio.ensure_future(ClaudeCodeClient("claude", "sonnet", program=program(tmp_path, body)).call(ASKED, "key", print))
    both = (await until(pids)).split()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for pid in both:
        assert await gone(int(pid))


@pytest.mark.skipif(REAL is None, reason="Claude Code is not installed: npm install -g @anthropic-ai/claude-code")
@pytest.mark.parametrize(
    ("say", "outcome"),
    [(Say(text="The sky is blue", tokens=(12, 4)), "The sky is blue"), (Say(status=401), "http_401"), (Say(status=529), "http_529")],
)
async def test_the_real_program(say: Say, outcome: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    async with ScriptedModel(say) as server:
        client = ClaudeCodeClient("claude", "sonnet", program=REAL or "", api_key=lambda: "sk-test", base_url=server.url)
        ended, said = await ask(client)
    if isinstance(ended, Answer):
        assert ended.text == "".join(said) == outcome
        assert (ended.usage.input_tokens, ended.usage.output_tokens) == (12, 4)
    else:
        assert ended.code == outcome
