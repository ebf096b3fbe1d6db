"""Claude Code, the program, as a provider: one question to it is one run of it, without tools, sessions or anything else of its own.

Spoken to by `claude -p --output-format stream-json`; what it prints is a JSON object a line. The prompt goes in by standard input, so
that it appears in no process list.
"""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from actors.child import child
from actors.models.port import OnText
from actors.models.records import Answer, Failure, Message, Request, Usage

_LINE_BYTES_MAX: Final = 16 * 1024 * 1024
_TRANSIENT_STATUS: Final = frozenset({408, 409, 425, 429})
_PASSED_ON: Final = (
    "PATH", "HOME", "LANG", "TMPDIR", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "CLAUDE_CONFIG_DIR", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS",
)  # fmt: skip
_INSTALL: Final = "npm install -g @anthropic-ai/claude-code"


class ClaudeCodeClient:
    """Adapter of `actors.models.port.ModelClient` over the real program."""

    def __init__(
        self, provider: str, model: str, *, program: str = "claude", api_key: Callable[[], str] | None = None, base_url: str | None = None
    ) -> None:
        """
        Args:
            model: as the program names them: ``sonnet``, ``opus`` or a full name.
            program: its path, or a name on the search path.
            api_key: called for each run; None = what the program is logged in with.
        """
        self._provider = provider
        self._model = model
        self._program = program
        self._api_key = api_key
        self._base_url = base_url

    async def call(self, request: Request, key: str, on_text: OnText) -> Answer | Failure:
        """The idempotency key cannot be handed to the program: a repeat is a new question, which without tools does nothing but cost."""
        program = shutil.which(self._program)
        if program is None:
            return Failure(kind="permanent", code="not_installed", message=f"{self._program} is not on the search path: {_INSTALL}")
        if request.tools:
            return Failure(kind="permanent", code="tools", message="Claude Code takes no tools of others")
        system, prompt = _prompt(request)
        words = [program, "-p", "--output-format", "stream-json", "--verbose", "--include-partial-messages", "--model", self._model]
        words += ["--tools", "", "--no-session-persistence", "--strict-mcp-config", "--system-prompt", system]
        said = _Heard(on_text)
        pipe, nothing = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
        # An empty folder: the program reads instructions and settings from the one that it is started in.
        with tempfile.TemporaryDirectory(prefix="cuebook-claude-") as folder:
            try:
                async with child(words, cwd=folder, environment=self._environment(), stdin=pipe, stderr=nothing) as process:
                    async with asyncio.TaskGroup() as both:
                        both.create_task(_hand_over(process, prompt.encode()))
                        both.create_task(_listen(process, said))
                    await process.wait()
            except OSError as error:
                return Failure(kind="permanent", code="not_started", message=str(error))
        return said.ended(self._provider, self._model, process.returncode)

    def _environment(self) -> Mapping[str, str]:
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        environment |= {"CLAUDE_CODE_MAX_RETRIES": "0", "DISABLE_AUTOUPDATER": "1", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}
        if self._api_key is not None:
            environment["ANTHROPIC_API_KEY"] = self._api_key()
        if self._base_url is not None:
            environment["ANTHROPIC_BASE_URL"] = self._base_url
        return environment

    async def close(self) -> None:
        """Nothing lasts longer than a call."""


class _Heard:
    """What the program has said, line by line."""

    def __init__(self, on_text: OnText) -> None:
        self._on_text = on_text
        self._result: dict[str, Any] | None = None
        self._starts = 0

    def line(self, line: bytes) -> None:
        try:
            said = msgspec.json.decode(line)
        except msgspec.DecodeError:
            return
        if not isinstance(said, dict):
            return
        if said.get("type") == "result":
            self._result = said
        elif said.get("type") == "stream_event":
            event = said.get("event") or {}
            self._starts += event.get("type") == "message_start"
            delta = event.get("delta") or {}
            # The program may begin an answer anew by itself; what is shown is the first, what counts is the result.
            if self._starts == 1 and delta.get("type") == "text_delta":
                self._on_text(str(delta.get("text", "")))

    def ended(self, provider: str, model: str, exit_code: int | None) -> Answer | Failure:
        result = self._result
        if result is None:
            return Failure(kind="transient", code="cut", message=f"the program ended with {exit_code} and without a result")
        text = str(result.get("result") or "")
        usage = _usage(result)
        if not result.get("is_error"):
            return Answer(text=text, provider=provider, model=model, stop_reason=str(result.get("stop_reason") or ""), usage=usage)
        status = result.get("api_error_status")
        if isinstance(status, int):
            transient = status in _TRANSIENT_STATUS or status >= 500
            return Failure(kind="transient" if transient else "permanent", code=f"http_{status}", message=text[:500], usage=usage)
        permanent = "not logged in" in text.lower() or "api key" in text.lower()
        return Failure(kind="permanent" if permanent else "transient", code="program", message=text[:500], usage=usage)


def _usage(result: Mapping[str, Any]) -> Usage:
    """Of all that was asked of models in the run, which may be more than what became the result."""
    each = [used for used in (result.get("modelUsage") or {}).values() if isinstance(used, dict)]
    given = sum(int(used.get(name) or 0) for used in each for name in ("inputTokens", "cacheReadInputTokens", "cacheCreationInputTokens"))
    return Usage(input_tokens=given, output_tokens=sum(int(used.get("outputTokens") or 0) for used in each))


def _prompt(request: Request) -> tuple[str, str]:
    """System prompt and question. A conversation is written out, since a run of the program answers one message."""
    system = [message.content for message in request.messages if message.role == "system"]
    if request.json_schema is not None:
        schema = msgspec.json.encode(request.json_schema, order="sorted").decode()
        system.append(f"Answer with one JSON value of this schema and nothing else:\n{schema}")
    rest = [message for message in request.messages if message.role != "system"]
    if len(rest) == 1:
        return "\n\n".join(system) or "Answer the question.", rest[0].content
    return "\n\n".join(system) or "Go on with the conversation.", "\n\n".join(_spoken(message) for message in rest)


def _spoken(message: Message) -> str:
    return f"{message.role.capitalize()}: {message.content}"


async def _hand_over(process: asyncio.subprocess.Process, prompt: bytes) -> None:
    if process.stdin is None:
        return
    try:
        process.stdin.write(prompt)
        await process.stdin.drain()
    except (BrokenPipeError, ConnectionResetError):
        # It ended without listening; its result, or that there is none, says why.
        return
    finally:
        process.stdin.close()


async def _listen(process: asyncio.subprocess.Process, said: _Heard) -> None:
    rest = b""
    while process.stdout is not None:
        block = await process.stdout.read(64 * 1024)
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            said.line(line)
        if not block or len(rest) > _LINE_BYTES_MAX:
            said.line(rest)
            return
