"""A model that runs in this process, as a chat model of LangChain's and as a provider. Needs the extra ``cuebook[local]``."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models.chat_models import BaseChatModel, generate_from_stream
from langchain_core.messages import AIMessageChunk, BaseMessage, convert_to_openai_messages
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGenerationChunk, ChatResult

from actors.models.langchain_models import LangChainClient
from actors.models.local_llamacpp import SMOLLM2, LoadedModel, Piece, give_back, take


class LocalChatModel(BaseChatModel):
    """Usable wherever LangChain's chat models are, also inside a graph; close it when nobody asks any more.

    model: ``smollm2``, or the path of a GGUF file. All of the same model in one process share it, and wait for each other. Tools are not
    taken: what fits in here cannot be trusted to call them.
    """

    model: str = SMOLLM2
    _loaded: LoadedModel | None = None

    def model_post_init(self, context: Any, /) -> None:
        """Raises: ConfigurationError: there are no such weights."""
        super().model_post_init(context)
        self._loaded = take(self.model)

    def close(self) -> None:
        """Let go of the model; waits for what is under way. Once is enough, more does no harm."""
        loaded, self._loaded = self._loaded, None
        if loaded is not None:
            give_back(loaded)

    @property
    def _llm_type(self) -> str:
        return "cuebook-local"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self.model}

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **options: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        async for piece in self._model().stream(_request(messages, stop, options)):
            chunk = _chunk(piece)
            if run_manager is not None and chunk.text:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **options: Any,
    ) -> ChatResult:
        pieces = self._model().ask_now(_request(messages, stop, options))
        return generate_from_stream(iter([_chunk(piece) for piece in pieces]))

    def _model(self) -> LoadedModel:
        if self._loaded is None:
            raise RuntimeError("this chat model has been closed")
        return self._loaded


class LocalClient(LangChainClient):
    """Adapter of `actors.models.port.ModelClient`. A repeat computes anew, which costs nobody anything: the key goes nowhere."""

    def __init__(self, provider: str, chat: LocalChatModel) -> None:
        """Takes over `chat`, and closes it."""
        super().__init__(provider, Path(chat.model).stem, chat, keyed=False, constrained=True)
        self._local = chat

    async def close(self) -> None:
        """Let go of the model."""
        await asyncio.to_thread(self._local.close)


def open_local(provider: str, model: str) -> LocalClient:
    """The client of a model in this process. Raises: ConfigurationError: there are no such weights."""
    return LocalClient(provider, LocalChatModel(model=model))


def _request(messages: list[BaseMessage], stop: list[str] | None, options: dict[str, Any]) -> dict[str, Any]:
    said = convert_to_openai_messages(messages)
    given = {name: value for name, value in options.items() if value is not None}
    return {"messages": said, **given, **({"stop": stop} if stop else {})}


def _chunk(piece: Piece) -> ChatGenerationChunk:
    """One piece of an answer; those that say how far the question is read, and the one that counts, have no text."""
    message = AIMessageChunk(content="")
    for choice in piece.get("choices") or ():
        message.content = choice["delta"].get("content") or ""
        if choice.get("finish_reason"):
            message.response_metadata = {"finish_reason": choice["finish_reason"], "model_name": piece["model"]}
    counted = piece.get("usage")
    if counted is not None:
        given, made = counted["prompt_tokens"], counted["completion_tokens"]
        message.usage_metadata = UsageMetadata(input_tokens=given, output_tokens=made, total_tokens=given + made)
    return ChatGenerationChunk(message=message)
