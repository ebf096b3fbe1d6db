"""The tools that a declared agent can have: a closed table, so that no name from a file is ever imported.

What touches files asks the `files` actor of the workspace, which refuses and records; each ask stands in the agent's own journal, so a
re-run does not do it twice.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from actors.actor import Actor
from actors.files.rules import Grant, Operation, Refusal, Rules, decide
from actors.models.records import ToolSpec

FILES: Final = "files"
_MEMORY: Final = "memory"


class ReadFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    path: str
    first: int = 1
    last: int | None = None


class WriteFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    path: str
    content: str


class DeleteFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    path: str


class RunCommand(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    command: str
    arguments: list[str] = []


class Remember(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    content: str


class Recall(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    query: str


class Used(msgspec.Struct, frozen=True, kw_only=True):
    """What a tool has to say to the model, and whether it did what it was asked."""

    text: str
    refused: bool = False


async def _read(agent: Actor[Any], grant: Grant, given: ReadFile) -> Used:
    return _said(await agent.ref(FILES, agent.id).read(path=given.path, first=given.first, last=given.last))


async def _write(agent: Actor[Any], grant: Grant, given: WriteFile) -> Used:
    refused = _own(agent, grant, "write", given.path)
    return refused or _said(await agent.ref(FILES, agent.id).write(path=given.path, content=given.content))


async def _delete(agent: Actor[Any], grant: Grant, given: DeleteFile) -> Used:
    refused = _own(agent, grant, "delete", given.path)
    return refused or _said(await agent.ref(FILES, agent.id).delete(path=given.path))


async def _run(agent: Actor[Any], grant: Grant, given: RunCommand) -> Used:
    if given.command not in grant.commands:
        allowed = ", ".join(grant.commands) or "none"
        return Used(text=f"refused (not_granted): {agent.actor_type} may run {allowed}", refused=True)
    return _said(await agent.ref(FILES, agent.id).run(command=given.command, arguments=given.arguments))


async def _remember(agent: Actor[Any], grant: Grant, given: Remember) -> Used:
    agent.ref(_MEMORY, agent.id).tell.remember(content=given.content, type="semantic", importance=0.5)
    return Used(text="remembered")


async def _recall(agent: Actor[Any], grant: Grant, given: Recall) -> Used:
    return _said(await agent.view(_MEMORY).recall(query=given.query))


def _own(agent: Actor[Any], grant: Grant, operation: Operation, path: str) -> Used | None:
    """What its own file does not grant is refused before anybody is asked; the rules of the workspace hold besides."""
    refusal = decide(agent.actor_type, operation, path, Rules(agents={agent.actor_type: grant}))
    return None if refusal is None else _said(msgspec.to_builtins(refusal))


def _said(reply: Any) -> Used:
    """A reply of the `files` actor, as asks give it: plain JSON values, a refusal by its tag."""
    plain = msgspec.to_builtins(reply)
    if isinstance(plain, dict) and plain.get("type") == "refused":
        refusal = msgspec.convert(plain, Refusal)
        return Used(text=f"refused ({refusal.rule}): {refusal.reason}", refused=True)
    if isinstance(plain, dict) and plain.get("type") == "content":
        return Used(text=str(plain["text"]))
    return Used(text=msgspec.json.encode(plain).decode())


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """One tool: what a model is told of it, the shape of its arguments, and what it does."""

    description: str
    arguments: type[msgspec.Struct]
    function: Callable[[Actor[Any], Grant, Any], Awaitable[Used]]

    def spec(self, name: str) -> ToolSpec:
        (schema,), parts = msgspec.json.schema_components([self.arguments])
        parameters = parts[schema["$ref"].rpartition("/")[2]]
        return ToolSpec(name=name, description=self.description, parameters=parameters)


TOOLS: Final[dict[str, Tool]] = {
    "read_file": Tool(description="Read lines of a text file of the workspace.", arguments=ReadFile, function=_read),
    "write_file": Tool(description="Make or replace a text file of the workspace.", arguments=WriteFile, function=_write),
    "delete_file": Tool(description="Remove a file of the workspace.", arguments=DeleteFile, function=_delete),
    "run_command": Tool(description="Run a declared program in the workspace.", arguments=RunCommand, function=_run),
    "remember": Tool(description="Keep a fact for later.", arguments=Remember, function=_remember),
    "recall": Tool(description="Look up facts that were kept.", arguments=Recall, function=_recall),
}
