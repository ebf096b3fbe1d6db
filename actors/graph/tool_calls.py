"""Tool calls of LangChain agents as effects of the actor that their graph runs in: intent, key, result, like any step (S15, S19, S21).

The tools stay as they are. Where a graph becomes an actor, each `ToolNode` in it learns to ask the run that it belongs to, if there is
one; outside of an actor it does what it did before.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from langchain_core.messages import ToolMessage
from langgraph.config import get_config
from langgraph.errors import GraphBubbleUp
from langgraph.prebuilt.tool_node import ToolNode

from actors.errors import StepFailed
from actors.graph.kinds import Kinds
from actors.graph.kinds_langgraph import fingerprint
from actors.graph.node import Run, calling, current_run, tasks_of
from actors.graph.packing import Packer
from actors.recovery import Recovery
from actors.scope import within
from events.codec import encode

TOOL: Final = "tool "
_ONE: Final = "_arun_one"
"""The method of a `ToolNode` that everything around one call lies in: what middleware does to it, and what becomes of its errors."""
_STOPPED: Final = "stopped"
Execute = Callable[[], Awaitable[Any]]


def journal_tools(compiled: Any) -> None:
    """Let the tool nodes of `compiled`, and of the graphs inside it, journal their calls. Doing it twice does no more."""
    for graph in (compiled, *(each for _, each in compiled.get_subgraphs(recurse=True))):
        for node in graph.nodes.values():
            bound = node.bound
            if isinstance(bound, ToolNode) and _ONE not in vars(bound):
                setattr(bound, _ONE, _journaled(getattr(bound, _ONE)))


def _journaled(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def one(call: Any, *rest: Any, **more: Any) -> Any:
        run = current_run()
        if run is None:
            return await original(call, *rest, **more)
        return await _called(run, call, lambda: original(call, *rest, **more))

    return one


class _Attempt:
    """One execution of a tool, and what came of it here; nothing if its result was in the journal."""

    def __init__(self, execute: Execute, kinds: Kinds) -> None:
        self._execute = execute
        self._kinds = kinds
        self.error: Exception | None = None
        self.bubble: GraphBubbleUp | None = None

    async def run(self, arguments: dict[str, Any]) -> dict[str, Any]:
        try:
            return _packed(await self._execute(), self._kinds)
        except GraphBubbleUp as bubble:
            # No failure: the tool asks a person, or sends the graph elsewhere.
            self.bubble = bubble
            return {_STOPPED: True}
        except Exception as error:
            self.error = error
            raise


async def _called(run: Run, call: Any, execute: Execute) -> Any:
    """What `execute` gives, as a step ``tool NAME`` of the task that it is in, or what a former execution gave.

    A recorded failure is raised again, as `StepFailed`, unless the journal says that the node was tried again behind it: then it is gone on
    to that. Only a node that a crash cut off between the two sees a `StepFailed` where it had seen the tool's own error.
    """
    actor: Any = run.actor
    turn, kinds = actor._turn, actor._kinds()
    recovery: Recovery = actor.tool_recovery.get(call["name"], "repeat")
    name, namespace = TOOL + call["name"], get_config()["configurable"]["checkpoint_ns"]
    with calling(call["name"], call["id"] or "") as own:
        node, scope = run.actor_of(namespace, own), run.scope_of(namespace, own)
        if scope.name in run.results:
            return _unpacked(run.results[scope.name], kinds, call)
        while True:
            attempt = _Attempt(execute, kinds)
            result: Any
            try:
                result = await node.step(name, attempt.run, call["args"], recovery=recovery)
            except StepFailed:
                if attempt.error is not None:
                    # As the tool raised it: who retries or handles it looks at its type.
                    raise attempt.error from attempt.error.__cause__
                with within(scope):
                    tried_again = turn._peek("step", name, None) in turn.entries
                if tried_again:
                    continue
                _consume(turn.entries, own)
                raise
            if attempt.bubble is not None:
                raise attempt.bubble
            if isinstance(result, dict) and result.get(_STOPPED):
                continue  # it asked, then; the answer is for the execution that follows
            _consume(turn.entries, own)
            run.results[scope.name] = result
            return _unpacked(result, kinds, call)


def _consume(entries: dict[Any, Any], own: str) -> None:
    """What a finished tool asked of its actor is part of what it gave."""
    tasks = tasks_of(own)
    for entry in entries.values():
        if tasks <= tasks_of(entry.use.key):
            entry.consumed = True


def _packed(result: Any, kinds: Kinds) -> dict[str, Any]:
    packer = Packer(kinds, fingerprint)
    text = packer.text(result)
    return {"value": msgspec.json.decode(text), "parts": [msgspec.json.decode(part) for part in packer.parts.since(0)]}


def _unpacked(result: Any, kinds: Kinds, call: Any) -> Any:
    if not isinstance(result, dict) or result.keys() != {"value", "parts"}:
        # A person has said what came of it (S21).
        said = result if isinstance(result, str) else encode(result).decode()
        return ToolMessage(said, name=call["name"], tool_call_id=call["id"])
    packer = Packer(kinds, fingerprint)
    for part in result["parts"]:
        packer.parts.add(encode(part))
    return packer.value(encode(result["value"]))
