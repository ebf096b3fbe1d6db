"""What a graph holds, as JSON shows it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from langchain_core.messages import BaseMessage


def plain(value: Any) -> Any:
    """`value` as JSON shows it to a program in any language: messages as objects with ``type`` and ``content``."""
    if isinstance(value, BaseMessage):
        return plain(value.model_dump(mode="json", exclude_defaults=False))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(dataclasses.asdict(value))
    if hasattr(value, "model_dump"):
        return plain(value.model_dump(mode="json"))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)
