"""The tools that a declared agent can have: a closed table, so that no name from a file is ever imported.

What touches files asks the `files` actor of the workspace, which refuses and records; each ask stands in the agent's own journal, so a
re-run does not do it twice.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

import msgspec

from actors.actor import Actor
from actors.files.names import Refusal
from actors.files.rules import Grant, Operation, Rules, decide
from actors.models.records import ToolSpec
from actors.ref import ActorRef
from actors.tasks.agent import NeedsAnswer

FILES: Final = "files"
_MEMORY: Final = "memory"
_OF_MEMORY: Final = frozenset({"remember", "recall"})


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


class AskPerson(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    question: str


class Used(msgspec.Struct, frozen=True, kw_only=True):
    """What a tool has to say to the model. rule: why it did not do what it was asked, "" = it did. written: the file that the `files` actor
    has confirmed."""

    text: str
    rule: str = ""
    written: str = ""


class Hands(NamedTuple):
    """Who uses a tool, where, and what its file lets it do. workspace: "" = there is none. for_run: a person can be asked."""

    agent: Actor[Any]
    workspace: str
    grant: Grant
    for_run: bool

    @property
    def files(self) -> ActorRef:
        return self.agent.ref(FILES, self.workspace)

    def outside(self, operation: Operation, path: str) -> Used | None:
        """What its own file does not grant is refused before anybody is asked; the rules of the workspace hold besides."""
        name = self.agent.actor_type
        refusal = decide(name, operation, path, Rules(agents={name: self.grant}))
        return None if refusal is None else _said(refusal)


async def _read(by: Hands, given: ReadFile) -> Used:
    return _said(await by.files.read(path=given.path, first=given.first, last=given.last))


async def _write(by: Hands, given: WriteFile) -> Used:
    return by.outside("write", given.path) or _said(await by.files.write(path=given.path, content=given.content), given.path)


async def _delete(by: Hands, given: DeleteFile) -> Used:
    return by.outside("delete", given.path) or _said(await by.files.delete(path=given.path))


async def _run(by: Hands, given: RunCommand) -> Used:
    if given.command not in by.grant.commands:
        allowed = ", ".join(by.grant.commands) or "none"
        return Used(text=f"refused (not_granted): {by.agent.actor_type} may run {allowed}", rule="not_granted")
    return _said(await by.files.run(command=given.command, arguments=given.arguments))


async def _remember(by: Hands, given: Remember) -> Used:
    by.agent.ref(_MEMORY, by.workspace).tell.remember(content=given.content, type="semantic", importance=0.5)
    return Used(text="remembered")


async def _recall(by: Hands, given: Recall) -> Used:
    return _said(await by.agent.view(_MEMORY).recall(query=given.query))


async def _ask(by: Hands, given: AskPerson) -> Used:
    if not by.for_run:
        return Used(text="refused (not_granted): there is nobody to ask; say in the answer what is missing", rule="not_granted")
    raise NeedsAnswer(given.question)


async def use(name: str, by: Hands, given: Any) -> Used:
    """Let `by` use the tool `name` with arguments of its type. Raises: what the tool raises; StepFailed, Rejected and the like are for the
    model to mend. NeedsAnswer: a person is asked, and this attempt is over."""
    if not by.workspace and name != "ask_person":
        return Used(text="refused (not_granted): there is no workspace", rule="not_granted")
    if name in _OF_MEMORY and by.agent.id != by.workspace:
        # A memory is its workspace's own: only an actor with that id reaches it (design: one token separates workspaces).
        why = f"memory is kept for {by.agent.actor_type}/{by.workspace} (`agent_id` of a step names it), not for {by.agent.id}"
        return Used(text=f"refused (not_granted): {why}", rule="not_granted")
    return await TOOLS[name].function(by, given)


def _said(reply: Any, written: str = "") -> Used:
    """A reply of the `files` actor, as asks give it: plain JSON values, a refusal by its tag."""
    plain = msgspec.to_builtins(reply)
    if isinstance(plain, dict) and plain.get("type") == "refused":
        refusal = msgspec.convert(plain, Refusal)
        return Used(text=f"refused ({refusal.rule}): {refusal.reason}", rule=refusal.rule)
    if isinstance(plain, dict) and plain.get("type") == "content":
        return Used(text=str(plain["text"]))
    return Used(text=msgspec.json.encode(plain).decode(), written=written)


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """One tool: what a model is told of it, the shape of its arguments, and what it does."""

    description: str
    arguments: type[msgspec.Struct]
    function: Callable[[Hands, Any], Awaitable[Used]]

    def spec(self, name: str) -> ToolSpec:
        (schema,), parts = msgspec.json.schema_components([self.arguments])
        parameters = parts[schema["$ref"].rpartition("/")[2]]
        return ToolSpec(name=name, description=self.description, parameters=parameters)


TOOLS: Final[dict[str, Tool]] = {
    "read_file": Tool(description="Read lines of a text file of the workspace.", arguments=ReadFile, function=_read),
    "write_file": Tool(description="Make or replace a text file of the workspace.", arguments=WriteFile, function=_write),
    "delete_file": Tool(description="Remove a file of the workspace.", arguments=DeleteFile, function=_delete),
    "run_command": Tool(description="Run a declared program in the workspace.", arguments=RunCommand, function=_run),
    "ask_person": Tool(
        description="Ask the person who wants this done, where nothing else tells. The work begins anew with the answer.",
        arguments=AskPerson,
        function=_ask,
    ),
    "remember": Tool(description="Keep a fact for later.", arguments=Remember, function=_remember),
    "recall": Tool(description="Look up facts that were kept.", arguments=Recall, function=_recall),
}
