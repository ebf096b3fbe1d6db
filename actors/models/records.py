"""What goes to a model service and what comes back: plain records, the same for every provider; all that the log ever holds of a call."""

from typing import Any, Literal

import msgspec


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """A model asks for a tool. `arguments` are as it wrote them, decoded; whether they fit is for the tool to say."""

    id: str
    name: str
    arguments: dict[str, Any] = {}


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a conversation. `tool_call_id` names the call that a message of role ``tool`` answers."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


class ToolSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A tool that a model may ask for; `parameters` is a JSON schema of an object."""

    name: str
    description: str
    parameters: dict[str, Any]


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that decides an answer. Two equal requests are the same question.

    json_schema: what the answer's text must be, as JSON; None = free text. max_tokens: of the answer.
    """

    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    json_schema: dict[str, Any] | None = None
    temperature: float | None = None
    max_tokens: int = 4_000


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens as the provider counted them; `cost_micro_usd` in millionths of a dollar, by the prices of the settings."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost_micro_usd: int = 0


class Answer(msgspec.Struct, frozen=True, kw_only=True, tag="answer"):
    """What a model said. `shared` = another caller's identical question was under way and paid for this answer."""

    text: str
    provider: str
    model: str
    tool_calls: tuple[ToolCall, ...] = ()
    stop_reason: str = ""
    usage: Usage = Usage()
    citations: tuple[str, ...] = ()
    shared: bool = False


class Failure(msgspec.Struct, frozen=True, kw_only=True, tag="failure"):
    """An attempt that gave no answer: data, so that it is the same after a crash.

    transient: it may go otherwise next time (timeout, lost connection, 408, 425, 429, 5xx, a stream that ends early or is garbage).
    permanent: it will not (wrong key, bad request, unknown model). `code` is short and stable: ``timeout``, ``connection``, ``http_429``.
    `shared` = another caller's identical question was under way, and it failed for both: one failure of the provider, reported once.
    """

    kind: Literal["transient", "permanent"]
    code: str
    message: str
    retry_after_s: float | None = None
    usage: Usage = Usage()
    shared: bool = False


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """Part of an answer while it is being said, as it stands on ``cue.chunk``.

    Pieces of one call and attempt follow each other by `offset`, counted in characters; another `attempt` begins anew at 0, and what was
    heard of the attempt before is void.
    """

    call: str
    attempt: int
    offset: int
    text: str
