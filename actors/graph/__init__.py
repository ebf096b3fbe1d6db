"""LangGraph on an event log: checkpoints and long-term memory for any LangGraph program, with one import and one path; graphs as actors.

The one place in `actors/` that does I/O outside a step (S38).
"""

try:
    import langgraph.checkpoint.base as _langgraph  # noqa: F401
except ImportError as error:  # pragma: no cover - the tests install it
    raise ImportError("actors.graph needs LangGraph: pip install 'cuebook[langgraph]'") from error

from actors.graph.actor import GraphActor, graph_actor
from actors.graph.chat_model import ServiceChatModel
from actors.graph.errors import StaleWriteOwnerError, ThreadWriteError, UnregisteredTypeError
from actors.graph.node import get_actor
from actors.graph.saver import EventLogSaver
from actors.graph.store import EventLogStore

__all__ = [
    "EventLogSaver",
    "EventLogStore",
    "GraphActor",
    "ServiceChatModel",
    "StaleWriteOwnerError",
    "ThreadWriteError",
    "UnregisteredTypeError",
    "get_actor",
    "graph_actor",
]
