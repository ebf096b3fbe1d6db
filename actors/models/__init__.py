"""Model services: what agents ask (`service`), who admits calls and keeps the books (`provider`), who speaks to providers
(`langchain_models`, `claude_code`), and what goes between them (`records`, `port`)."""

from actors.models.records import Answer, Message, Piece, ToolCall, ToolSpec, Usage

__all__ = ["Answer", "Message", "Piece", "ToolCall", "ToolSpec", "Usage"]
