"""What every declared agent does: it works on a task by asking its model, using the tools that the model asks for, and asking again."""

from typing import Any, ClassVar, Final, Literal

import msgspec

from actors.actor import Actor, command
from actors.agents.tools import FILES, TOOLS, Used
from actors.errors import BadPayload, Gone, Rejected, StepFailed, TooLarge, Unknown
from actors.event import Event, State
from actors.files.rules import Grant
from actors.models.records import Message, ToolCall

ROUNDS: Final = 8
ROUNDS_MAX: Final = 20
_CALLS_MAX: Final = 8
"""Tool calls of one answer that are carried out; the model is told of the others."""
_RESULT_CHARS_MAX: Final = 8_000
_TALK_CHARS_MAX: Final = 150_000
"""The whole conversation is recorded with each question: this many times `ROUNDS_MAX` stays below the 4 MiB of a turn."""
_TASK_CHARS_SHOWN: Final = 1_000


class Declaration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table ``[agents.NAME]`` of the file. model: a provider of the settings. capabilities: none given = it may read."""

    instructions: str
    model: str
    tools: tuple[str, ...] = ()
    capabilities: Grant = Grant()
    rounds: int = ROUNDS


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a task. ended: the model was done, or was stopped because of too many rounds or too long a conversation."""

    text: str
    rounds: int
    tools_used: int
    ended: Literal["done", "rounds", "size"]


class AgentState(State):
    tasks: int = 0
    tools_used: dict[str, int] = {}
    last: Outcome | None = None


class ToolUsed(Event[AgentState], tag="agent.tool_used"):
    """The model asked for a tool. `outcome`: it did so, was refused, or what the model asked made no sense."""

    tool: str
    call: str
    outcome: Literal["done", "refused", "wrong"]

    def apply(self, state: AgentState) -> None:
        state.tools_used[self.tool] = state.tools_used.get(self.tool, 0) + 1


class TaskEnded(Event[AgentState], tag="agent.task_ended"):
    """A task is over."""

    task: str
    outcome: Outcome

    def apply(self, state: AgentState) -> None:
        state.tasks += 1
        state.last = self.outcome


class DeclaredAgent(Actor[AgentState]):
    """Base of the types that `agents_from` makes. The id of an agent is that of its workspace, as with the review team."""

    declared: ClassVar[Declaration]

    @command
    async def work(self, task: str, root: str | None = None) -> Outcome:
        """Do `task`. What the model says is streamed on ``cue.chunk``; each question, and each use of a tool, is recorded once it is done.

        Args:
            root: the folder of the workspace; needed until somebody has opened it.

        Raises:
            ModelUnavailable, ModelRefused, BudgetSpent: the model gave no answer.
        """
        declared = self.declared
        if root is not None:
            await self.ref(FILES, self.id).open(root=root)
        model = self.model(declared.model)
        specs = [TOOLS[name].spec(name) for name in declared.tools]
        said = [Message(role="system", content=declared.instructions), Message(role="user", content=task)]
        used = number = 0
        while True:
            number += 1
            answer = await model.chat(said, tools=specs, stream=True)
            if not answer.tool_calls:
                return self._end(task, Outcome(text=answer.text, rounds=number, tools_used=used, ended="done"))
            said.append(Message(role="assistant", content=answer.text, tool_calls=answer.tool_calls))
            for position, call in enumerate(answer.tool_calls):
                result = await self._use(call) if position < _CALLS_MAX else f"not done: at most {_CALLS_MAX} tools at once"
                used += position < _CALLS_MAX
                said.append(Message(role="tool", content=result, tool_call_id=call.id))
            if sum(len(message.content) for message in said) > _TALK_CHARS_MAX:
                return self._end(task, Outcome(text=answer.text, rounds=number, tools_used=used, ended="size"))
            if number == declared.rounds:
                return self._end(task, Outcome(text=answer.text, rounds=number, tools_used=used, ended="rounds"))

    def _end(self, task: str, outcome: Outcome) -> Outcome:
        self.emit(TaskEnded(task=task[:_TASK_CHARS_SHOWN], outcome=outcome))
        return outcome

    async def _use(self, call: ToolCall) -> str:
        """What the model is told about its call. Only what it can mend becomes a text; everything else ends the turn."""
        tool = TOOLS.get(call.name) if call.name in self.declared.tools else None
        outcome: Literal["done", "refused", "wrong"] = "wrong"
        if tool is None:
            text = f"there is no tool {call.name!r}; there are: {', '.join(self.declared.tools) or 'none'}"
        else:
            try:
                used: Used = await tool.function(self, self.declared.capabilities, _arguments(call, tool.arguments))
                text, outcome = used.text, "refused" if used.refused else "done"
            except msgspec.ValidationError as error:
                text = f"the arguments do not fit: {error}"
            except (Rejected, BadPayload, Unknown, TooLarge, Gone, StepFailed) as error:
                text = error.message
        self.emit(ToolUsed(tool=call.name[:64], call=call.id, outcome=outcome))
        more = len(text) - _RESULT_CHARS_MAX
        return text if more <= 0 else f"{text[:_RESULT_CHARS_MAX]}\n[{more:,} more characters]"


def _arguments(call: ToolCall, type: type[msgspec.Struct]) -> Any:
    return msgspec.convert(call.arguments, type)
