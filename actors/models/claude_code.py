"""Claude Code, the program, as a provider: one question to it is one run of it, without tools, sessions or anything else of its own.

Spoken to by `claude -p --output-format stream-json`; what it prints is a JSON object a line. What it is asked goes in by standard input and
a file of ours, so that no prompt is too long for a command line, looks like an option of one, or appears in a process list.
"""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from actors.child import Child, child, drain, end_politely
from actors.models.port import OnText
from actors.models.records import Answer, Failure, Message, Request, Usage
from actors.tools.git import search_path

LINE_BYTES_MAX: Final = 16 * 1024 * 1024
OUTPUT_BYTES_MAX: Final = 64 * 1024 * 1024
"""Of one run, all that it prints: far beyond any answer, so what says more has gone mad."""

_STDERR_BYTES_KEPT: Final = 2_000
_MESSAGE_MAX: Final = 500
_LAST_WORDS_S: Final = 5.0
"""For a program that has given its result, to end; and for its pipe to be empty once it has ended."""

_TRANSIENT_STATUS: Final = frozenset({408, 409, 425, 429})
_PASSED_ON: Final = (
    "HOME", "LANG", "TMPDIR", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "CLAUDE_CONFIG_DIR", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS",
)  # fmt: skip
_SET: Final = {
    "CLAUDE_CODE_MAX_RETRIES": "0", "DISABLE_AUTOUPDATER": "1", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    # A prompt is text: `@/etc/passwd` in it is no wish to read that file, and no file beside it adds to what it says.
    "CLAUDE_CODE_DISABLE_ATTACHMENTS": "1", "CLAUDE_CODE_DISABLE_CLAUDE_MDS": "1", "CLAUDE_CODE_DISABLE_AUTO_MEMORY": "1",
}  # fmt: skip
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
        program = shutil.which(self._program, path=search_path())
        if program is None:
            return Failure(kind="permanent", code="not_installed", message=f"{self._program} is not on the search path: {_INSTALL}")
        if request.tools:
            return Failure(kind="permanent", code="tools", message="Claude Code takes no tools of others")
        system, prompt = _prompt(request)
        api_key = None if self._api_key is None else self._api_key()
        said, complaints = _Heard(on_text), _Tail()
        pipe = asyncio.subprocess.PIPE
        with _folders(system) as (folder, instructions):
            # `--model=` in one word: whatever the model is called, it is no option of its own.
            words = [program, "-p", "--output-format", "stream-json", "--verbose", "--include-partial-messages", f"--model={self._model}"]
            words += ["--tools", "", "--no-session-persistence", "--strict-mcp-config", "--system-prompt-file", instructions]
            try:
                async with child(words, cwd=folder, environment=self._environment(api_key), stdin=pipe, stderr=pipe) as process:
                    exit_code = await _converse(process, prompt.encode("utf-8", "replace"), said, complaints)
            except (OSError, ValueError) as error:
                return Failure(kind="permanent", code="not_started", message=_without(api_key, str(error)))
        return said.ended(self._provider, self._model, exit_code, lambda text: _without(api_key, text), complaints.text())

    def _environment(self, api_key: str | None) -> Mapping[str, str]:
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ} | {"PATH": search_path(), **_SET}
        if api_key is not None:
            environment["ANTHROPIC_API_KEY"] = api_key
        if self._base_url is not None:
            environment["ANTHROPIC_BASE_URL"] = self._base_url
        return environment

    async def close(self) -> None:
        """Nothing lasts longer than a call."""


@contextmanager
def _folders(system: str) -> Iterator[tuple[str, str]]:
    """An empty folder to start in, because the program reads instructions and settings from the one that it is started in; and, beside it,
    the system prompt as a file."""
    with tempfile.TemporaryDirectory(prefix="cuebook-claude-") as private:
        folder, instructions = Path(private, "empty"), Path(private, "system.txt")
        folder.mkdir()
        instructions.write_text(system, encoding="utf-8", errors="replace")
        yield str(folder), str(instructions)


async def _converse(process: Child, prompt: bytes, said: "_Heard", complaints: "_Tail") -> int | None:
    """Ask, and listen until there is a result, or nothing more can come. Returns: how the program ended, None if we ended it."""
    async with asyncio.TaskGroup() as group:
        # Errors are taken as they come, or a program that writes many would wait for somebody to read them.
        asking = group.create_task(_hand_over(process, prompt))
        complaining = group.create_task(drain(process.stderr, complaints.add))
        listening = group.create_task(_listen(process, said))
        ending = group.create_task(process.wait_exited())
        try:
            await asyncio.wait([listening, ending], return_when=asyncio.FIRST_COMPLETED)
            # Whoever is first has a while to follow: what is in the pipe is read, and who has said the result may end.
            if not said.spent:
                await asyncio.wait([listening, ending], timeout=_LAST_WORDS_S)
            said.close()
            if not ending.done():
                await end_politely(process)
                return None
            if not said.done:
                await asyncio.wait([complaining], timeout=_LAST_WORDS_S)
            return process.returncode
        finally:
            for task in (asking, complaining, listening, ending):
                task.cancel()


class _Tail:
    """The end of what a program complains about, in bounded memory."""

    def __init__(self) -> None:
        self._last = b""

    def add(self, block: bytes) -> None:
        self._last = (self._last + block)[-_STDERR_BYTES_KEPT:]

    def text(self) -> str:
        return self._last.decode("utf-8", "replace").strip()


def _without(api_key: str | None, text: str) -> str:
    """The end of `text` as it may be recorded: programs like to repeat the key that they complain about."""
    return (text.replace(api_key, "***") if api_key else text)[-_MESSAGE_MAX:]


class _Delta(msgspec.Struct, frozen=True):
    type: str = ""
    text: str = ""


class _Counted(msgspec.Struct, frozen=True):
    """Tokens as the interface of the models counts them."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


class _Begun(msgspec.Struct, frozen=True):
    usage: _Counted = _Counted()


class _Event(msgspec.Struct, frozen=True):
    type: str = ""
    delta: _Delta | None = None
    message: _Begun | None = None
    usage: _Counted | None = None


class _Used(msgspec.Struct, frozen=True, rename="camel"):
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0


class _Line(msgspec.Struct, frozen=True):
    """What is read of any line that the program prints."""

    type: str = ""
    event: _Event | None = None
    is_error: bool = False
    api_error_status: int | None = None
    result: str | None = None
    stop_reason: str | None = None
    model_usage: dict[str, _Used] | None = msgspec.field(default=None, name="modelUsage")


class _Heard:
    """What the program has said, line by line."""

    def __init__(self, on_text: OnText) -> None:
        self._on_text = on_text
        self._rest = bytearray()
        self._seen = 0
        self._result: _Line | None = None
        self._garbage = False
        self._too_large = False
        self._starts = 0
        self._counted = Usage()

    @property
    def done(self) -> bool:
        """Nothing that comes now changes the outcome."""
        return self._result is not None or self._too_large

    @property
    def spent(self) -> bool:
        """It will not stop by itself."""
        return self._too_large

    def add(self, block: bytes) -> None:
        self._seen += len(block)
        # Only the new block is looked at for an end: a long line costs as much as it is long, not its square.
        if b"\n" not in block:
            self._rest += block
        else:
            first, *lines = block.split(b"\n")
            self._rest += first
            for line in lines:
                self._line(bytes(self._rest))
                self._rest = bytearray(line)
        self._too_large = len(self._rest) > LINE_BYTES_MAX or self._seen > OUTPUT_BYTES_MAX

    def close(self) -> None:
        """The output has ended; its last line may lack its end."""
        self._line(bytes(self._rest))
        self._rest.clear()

    def _line(self, line: bytes) -> None:
        if not line.strip() or self._result is not None or self._too_large:
            return
        try:
            said = msgspec.json.decode(line, type=_Line)
        except (msgspec.DecodeError, RecursionError):
            # Warnings go astray between the lines; a result that cannot be read does not count as one.
            self._garbage = True
            return
        if said.type == "result":
            self._result = said
        elif said.type == "stream_event" and said.event is not None:
            self._stream(said.event)

    def _stream(self, event: _Event) -> None:
        self._starts += event.type == "message_start"
        for usage in (event.usage, None if event.message is None else event.message.usage):
            if usage is not None:
                given = usage.input_tokens + (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
                before = self._counted
                # Each report of one message counts from its start.
                self._counted = Usage(
                    input_tokens=max(before.input_tokens, given), output_tokens=max(before.output_tokens, usage.output_tokens)
                )
        # The program may begin an answer anew by itself; what is shown is the first, what counts is the result.
        if self._starts == 1 and event.delta is not None and event.delta.type == "text_delta":
            self._on_text(event.delta.text)

    def ended(self, provider: str, model: str, exit_code: int | None, shown: Callable[[str], str], complaints: str) -> Answer | Failure:
        result = self._result
        if self._too_large:
            what = f"a line of more than {LINE_BYTES_MAX:,} bytes" if self._seen <= OUTPUT_BYTES_MAX else f"{self._seen:,} bytes"
            return Failure(kind="transient", code="too_large", message=f"the program printed {what}", usage=self._counted)
        if result is None:
            code = "garbage" if self._garbage else "cut"
            why = f"the program ended with {exit_code} and without a result" + (f": {complaints}" if complaints else "")
            return Failure(kind="transient", code=code, message=shown(why), usage=self._counted)
        text = result.result or ""
        usage = _usage(result)
        if result.is_error:
            status = result.api_error_status
            if status is not None:
                transient = status in _TRANSIENT_STATUS or status >= 500
                return Failure(kind="transient" if transient else "permanent", code=f"http_{status}", message=shown(text), usage=usage)
            permanent = "not logged in" in text.lower() or "api key" in text.lower()
            return Failure(kind="permanent" if permanent else "transient", code="program", message=shown(text), usage=usage)
        if exit_code not in {0, None}:
            why = f"the program gave a result and ended with {exit_code}" + (f": {complaints}" if complaints else "")
            return Failure(kind="transient", code="exit", message=shown(why), usage=usage)
        return Answer(text=text, provider=provider, model=model, stop_reason=result.stop_reason or "", usage=usage)


def _usage(result: _Line) -> Usage:
    """Of all that was asked of models in the run, which may be more than what became the result."""
    each = (result.model_usage or {}).values()
    given = sum(used.input_tokens + used.cache_read_input_tokens + used.cache_creation_input_tokens for used in each)
    return Usage(input_tokens=given, output_tokens=sum(used.output_tokens for used in each))


def _prompt(request: Request) -> tuple[str, str]:
    """System prompt and question. A conversation is written out, since a run of the program answers one message."""
    system = [message.content for message in request.messages if message.role == "system"]
    if request.json_schema is not None:
        schema = msgspec.json.encode(request.json_schema, order="sorted").decode()
        system.append(f"Answer with one JSON value of this schema and nothing else:\n{schema}")
    rest = [message for message in request.messages if message.role != "system"]
    # The program takes a message that begins with a slash for one of its own commands.
    if len(rest) == 1 and not rest[0].content.lstrip().startswith("/"):
        return "\n\n".join(system) or "Answer the question.", rest[0].content
    return "\n\n".join(system) or "Go on with the conversation.", "\n\n".join(_spoken(message) for message in rest)


def _spoken(message: Message) -> str:
    return f"{message.role.capitalize()}: {message.content}"


async def _hand_over(process: Child, prompt: bytes) -> None:
    if process.stdin is None or process.stdin.is_closing():
        return
    try:
        process.stdin.write(prompt)
        await process.stdin.drain()
    except (BrokenPipeError, ConnectionResetError):
        # It ended without listening; its result, or that there is none, says why.
        return
    finally:
        process.stdin.close()


async def _listen(process: Child, said: _Heard) -> None:
    """Until it has said what counts, or all that it will."""
    while process.stdout is not None and not said.done:
        block = await process.stdout.read(64 * 1024)
        if not block:
            said.close()
            return
        said.add(block)
