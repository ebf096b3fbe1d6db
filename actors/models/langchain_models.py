"""Clients of model providers through LangChain's chat models: one adapter for all, since every one of them streams messages alike.

The libraries' own retries are switched off: how often something is tried is decided, recorded and paid for in `actors.models.service`.
"""

from collections.abc import Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from actors.models.port import OnText
from actors.models.records import Answer, Failure, Message, Request, ToolCall, Usage
from events.errors import ConfigurationError

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessageChunk, BaseMessage

Kind = Literal["openai", "anthropic", "perplexity"]
INSTALL: Final = "pip install 'cuebook[models]'"
NEEDED: Final[Mapping[Kind, tuple[str, ...]]] = {
    "openai": ("langchain-openai",),
    "anthropic": ("langchain-anthropic",),
    "perplexity": ("langchain-perplexity", "perplexityai"),
}
"""The distributions that `open_client` imports: a second or two of a processor, so it is not done to see whether they are there."""
_TRANSIENT_STATUS: Final = frozenset({408, 409, 425, 429})


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where a provider is and which model to ask. `base_url`: None = the provider's own."""

    kind: Kind
    model: str
    base_url: str | None = None


class LangChainClient:
    """Adapter of `actors.models.port.ModelClient` over any `BaseChatModel`."""

    def __init__(self, provider: str, name: str, chat: "BaseChatModel", *, keyed: bool = True, constrained: bool = False) -> None:
        """
        Args:
            provider: its name in the settings. name: the model's.
            keyed: whether its client takes extra headers, so that the idempotency key can travel.
            constrained: whether it can be held to a JSON schema while it speaks (``response_format``).
        """
        self._provider = provider
        self._name = name
        self._chat = chat
        self._keyed = keyed
        self._constrained = constrained

    async def call(self, request: Request, key: str, on_text: OnText) -> Answer | Failure:
        from langchain_core.runnables.config import var_child_runnable_config

        options: dict[str, Any] = {"extra_headers": {"Idempotency-Key": key}} if self._keyed else {}
        options["max_tokens"] = request.max_tokens
        if request.temperature is not None:
            options["temperature"] = request.temperature
        if self._constrained and request.json_schema is not None:
            options["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": request.json_schema}}
        chat: Any = self._chat
        if request.tools:
            try:
                chat = chat.bind_tools([_tool(tool.name, tool.description, tool.parameters) for tool in request.tools])
            except NotImplementedError:
                return Failure(kind="permanent", code="tools", message=f"the model of {self._provider} takes no tools")
        whole: AIMessageChunk | None = None
        finished = False
        # Inside a graph's node LangChain would hand this stream to the graph's callbacks too: every token would go out twice.
        around = var_child_runnable_config.set(None)
        try:
            async for piece in chat.astream(_messages(request), **options):
                on_text(_text(piece))
                whole = piece if whole is None else whole + piece
                finished = finished or _stop_reason(piece) != ""
        except Exception as error:  # noqa: BLE001  whatever a client library raises becomes a typed failure
            return failure_of(error, _usage(whole))
        finally:
            var_child_runnable_config.reset(around)
        if whole is None or not finished:
            # The stream ended without its end: what came so far is not the answer, though it may look like one.
            return Failure(kind="transient", code="cut", message="the stream ended before the answer did", usage=_usage(whole))
        calls = tuple(
            ToolCall(id=call.get("id") or f"call-{number}", name=call["name"], arguments=dict(call["args"]))
            for number, call in enumerate(whole.tool_calls)
        )
        if whole.invalid_tool_calls:
            return Failure(kind="transient", code="garbage", message="a tool call is not JSON", usage=_usage(whole))
        citations = whole.additional_kwargs.get("citations") or ()
        return Answer(
            text=_text(whole), provider=self._provider, model=str(whole.response_metadata.get("model_name") or self._name),
            tool_calls=calls, stop_reason=_stop_reason(whole), usage=_usage(whole), citations=tuple(map(str, citations)),
        )  # fmt: skip

    async def close(self) -> None:
        """Nothing: LangChain's chat models share their connection pools within a process, and closing one would close all of them."""


def open_client(provider: str, endpoint: Endpoint, api_key: Callable[[], str], timeout_s: float) -> LangChainClient:
    """The client of an endpoint.

    Args:
        api_key: called once, now; the key is held by the client library and appears nowhere else.

    Raises:
        ConfigurationError: the library is not installed.
    """
    common: dict[str, Any] = {"max_retries": 0, "timeout": timeout_s}
    place: dict[str, Any] = {} if endpoint.base_url is None else {"base_url": endpoint.base_url}
    # A plain text becomes pydantic's SecretStr in there; so that this need not be imported here, its type is not said.
    secret: Any = api_key()
    chat: Any
    try:
        if endpoint.kind == "openai":
            from langchain_openai import ChatOpenAI

            # Chat completions, not OpenAI's own Responses API: that is what everybody else who is compatible speaks.
            own: dict[str, Any] = {"stream_usage": True, "use_responses_api": False}
            chat = ChatOpenAI(model=endpoint.model, api_key=secret, **own, **place, **common)
        elif endpoint.kind == "anthropic":
            from langchain_anthropic import ChatAnthropic

            chat = ChatAnthropic(model_name=endpoint.model, api_key=secret, **place, **common)
        else:
            import perplexity
            from langchain_perplexity import ChatPerplexity

            # Made here, because the chat model's own knows no other address; a synchronous one it would make for itself.
            clients: dict[str, Any] = {
                "async_client": perplexity.AsyncPerplexity(api_key=secret, **place, **common),
                "client": perplexity.Perplexity(api_key=secret, **place, **common),
            }
            chat = ChatPerplexity(model=endpoint.model, api_key=secret, max_retries=0, **clients)
    except ImportError as error:
        raise ConfigurationError(f"the model provider {provider} needs {error.name}: {INSTALL}") from error
    return LangChainClient(provider, endpoint.model, chat)


def failure_of(error: Exception, usage: Usage = Usage()) -> Failure:  # noqa: B008  frozen
    """What an exception of a client library means: the status if there is one, else what kind of error it is."""
    message = str(error)[:500] or type(error).__name__
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        transient = status in _TRANSIENT_STATUS or status >= 500
        headers = getattr(getattr(error, "response", None), "headers", None) or {}
        return Failure(
            kind="transient" if transient else "permanent", code=f"http_{status}", message=message,
            retry_after_s=_retry_after(headers) if transient else None, usage=usage,
        )  # fmt: skip
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"APITimeoutError", "TimeoutException", "TimeoutError"}:
        return Failure(kind="transient", code="timeout", message=message, usage=usage)
    if names & {"APIConnectionError", "TransportError", "ConnectionError", "StreamError"}:
        return Failure(kind="transient", code="connection", message=message, usage=usage)
    if names & {"JSONDecodeError", "DecodeError", "UnicodeDecodeError", "APIResponseValidationError", "ValidationError", "APIError"}:
        return Failure(kind="transient", code="garbage", message=message, usage=usage)
    return Failure(kind="permanent", code="client", message=f"{type(error).__name__}: {message}", usage=usage)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from either form of the header (RFC 9110, 10.2.3); a date counts from the reply's own Date."""
    said = headers.get("retry-after")
    if not said:
        return None
    try:
        return max(0.0, float(said))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(said) - parsedate_to_datetime(headers["date"])).total_seconds())
    except (KeyError, ValueError, TypeError):
        return None


def _messages(request: Request) -> "list[BaseMessage]":
    from langchain_core.messages import SystemMessage

    said = [_message(message) for message in request.messages]
    if request.json_schema is not None:
        schema = msgspec.json.encode(request.json_schema, order="sorted").decode()
        said.insert(0, SystemMessage(f"Answer with one JSON value of this schema and nothing else:\n{schema}"))
    return said


def _message(message: Message) -> "BaseMessage":
    from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

    if message.role == "system":
        return SystemMessage(message.content)
    if message.role == "user":
        return HumanMessage(message.content)
    if message.role == "tool":
        return ToolMessage(message.content, tool_call_id=message.tool_call_id or "")
    calls = [{"id": call.id, "name": call.name, "args": call.arguments, "type": "tool_call"} for call in message.tool_calls]
    return AIMessage(message.content, tool_calls=calls)


def _tool(name: str, description: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "description": description, "parameters": dict(parameters)}}


def _text(message: "BaseMessage") -> str:
    if isinstance(message.content, str):
        return message.content
    blocks: Sequence[Any] = message.content
    return "".join(block if isinstance(block, str) else block.get("text", "") for block in blocks)


def _usage(message: "AIMessageChunk | None") -> Usage:
    counted = None if message is None else message.usage_metadata
    if counted is None:
        return Usage()
    return Usage(input_tokens=counted["input_tokens"], output_tokens=counted["output_tokens"])


def _stop_reason(message: "BaseMessage") -> str:
    said = message.response_metadata
    return str(said.get("finish_reason") or said.get("stop_reason") or "")
