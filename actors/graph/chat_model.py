"""A model service of the deployment as a LangChain chat model, for graphs and agents that take one (design.md 8)."""

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from actors.errors import BadPayload
from actors.graph.node import SPOKEN, get_actor
from actors.models.records import Answer, Message, ToolCall, ToolSpec


class ServiceChatModel(BaseChatModel):
    """``create_agent(ServiceChatModel(service="fast"), tools)``: each call is `Actor.model` of the actor that the graph runs in - admitted,
    retried, handed to a fallback, paid for, and journaled under the node that makes it, so that a call which had its answer is not made
    again after a crash, and one that had not carries the same idempotency key. What the model says goes to ``cue.chunk`` as it says it,
    with its attempt and offset.

    service: a provider of the settings. The rest as of `ModelRef.chat`. Only asynchronous, and only in a graph that runs inside an actor.
    Raises, when asked: as `ModelRef.chat`, `get_actor`; BadPayload: content that is not text.
    """

    service: str
    max_tokens: int = 4_000
    temperature: float | None = None
    deadline_s: float = 300.0

    @property
    def _llm_type(self) -> str:
        return "cuebook"

    def bind_tools(
        self, tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool], *, tool_choice: Any = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """As `BaseChatModel.bind_tools`. Raises: BadPayload: a tool is forced; the services leave the choice to the model."""
        if tool_choice not in (None, "auto"):
            raise BadPayload(f"tool_choice={tool_choice!r}: a model service leaves the choice to its model")
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)

    def _generate(self, *_: Any, **__: Any) -> NoReturn:
        raise BadPayload("a model service is asked with `await`: use ainvoke, and an `async def` node")

    async def _agenerate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        if stop:
            raise BadPayload("a model service knows no stop words")
        tools = [_spec(tool["function"]) for tool in kwargs.get("tools") or ()]
        answer = await get_actor().model(self.service).chat(
            [_said(message) for message in messages], tools=tools, temperature=self.temperature, max_tokens=self.max_tokens,
            deadline_s=self.deadline_s, stream=True,
        )  # fmt: skip
        return ChatResult(generations=[ChatGeneration(message=_message(answer))])


def _spec(function: dict[str, Any]) -> ToolSpec:
    parameters = function.get("parameters") or {"type": "object", "properties": {}}
    return ToolSpec(name=function["name"], description=function.get("description", ""), parameters=parameters)


def _said(message: BaseMessage) -> Message:
    if isinstance(message, ToolMessage):
        return Message(role="tool", content=_text(message), tool_call_id=message.tool_call_id)
    if isinstance(message, AIMessage):
        calls = tuple(
            ToolCall(id=call.get("id") or f"call-{number}", name=call["name"], arguments=dict(call["args"]))
            for number, call in enumerate(message.tool_calls)
        )
        return Message(role="assistant", content=_text(message), tool_calls=calls)
    if message.type not in ("human", "system"):
        raise BadPayload(f"a message of type {message.type} cannot be put to a model service")
    return Message(role="system" if message.type == "system" else "user", content=_text(message))


def _text(message: BaseMessage) -> str:
    content = message.content
    if isinstance(content, str):
        return content
    blocks = [{"type": "text", "text": block} if isinstance(block, str) else block for block in content]
    strange = sorted({str(block.get("type")) for block in blocks} - {"text"})
    if strange:
        raise BadPayload(f"a model service takes text, not {', '.join(strange)}")
    return "".join(str(block["text"]) for block in blocks)


def _message(answer: Answer) -> AIMessage:
    used = answer.usage
    tokens = {"input_tokens": used.input_tokens, "output_tokens": used.output_tokens}
    tokens["total_tokens"] = sum(tokens.values())
    calls = [{"id": call.id, "name": call.name, "args": dict(call.arguments), "type": "tool_call"} for call in answer.tool_calls]
    told = {"model_name": answer.model, "model_provider": answer.provider, "finish_reason": answer.stop_reason, SPOKEN: True}
    return AIMessage(answer.text, tool_calls=calls, usage_metadata=tokens, response_metadata=told)
