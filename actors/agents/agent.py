"""What every declared agent does: it works on a task by asking its model, using the tools that the model asks for, and asking again.

A task comes from a person (`do`) or as a step of a run (`work`); for a run it can also make the plan.
"""

from typing import Any, ClassVar, Final, Literal

import msgspec

from actors.actor import command
from actors.agents.tools import FILES, TOOLS, Hands, use
from actors.errors import BadPayload, Gone, Rejected, StepFailed, TooLarge, Unknown
from actors.event import Event, State
from actors.files.limits import PATH_BYTES_MAX
from actors.files.rules import Grant
from actors.models.records import Message, ToolCall
from actors.tasks.agent import Agent
from actors.tasks.records import Job, Plan, Result
from actors.tasks.router import OURS

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
    """The model asked for a tool. `outcome`: it did so, was refused, or what the model asked made no sense. rule: why it was refused, and
    target: the file or program that was refused."""

    tool: str
    call: str
    outcome: Literal["done", "refused", "wrong"]
    rule: str = ""
    target: str = ""

    def apply(self, state: AgentState) -> None:
        state.tools_used[self.tool] = state.tools_used.get(self.tool, 0) + 1


class TaskEnded(Event[AgentState], tag="agent.task_ended"):
    """A task is over."""

    task: str
    outcome: Outcome

    def apply(self, state: AgentState) -> None:
        state.tasks += 1
        state.last = self.outcome


class DeclaredAgent(Agent[AgentState]):
    """Base of the types that `agents_from` makes. The id of an agent is that of its workspace, as with the review team; a step of a run may
    have one of its own, which then reaches the files of the run's workspace and no memory."""

    declared: ClassVar[Declaration]

    @command
    async def do(self, task: str, root: str | None = None) -> Outcome:
        """Do `task`. What the model says is streamed on ``cue.chunk``; each question, and each use of a tool, is recorded once it is done.

        Args:
            root: the folder of the workspace; needed until somebody has opened it.

        Raises:
            ModelUnavailable, ModelRefused, BudgetSpent: the model gave no answer.
        """
        if root is not None:
            await self.ref(FILES, self.id).open(root=root)
        return (await self._talk(task, self.id, for_run=False))[0]

    async def handle(self, job: Job) -> Result:
        """A step of a run, or its plan. What counts as written is what the `files` actor has confirmed; being stopped is an issue."""
        if job.step == "_plan":
            plan = await self.model(self.declared.model).ask_for(Plan, self._planning(job))
            return Result(text=plan.summary, data=msgspec.to_builtins(plan))
        outcome, written = await self._talk(_told(job), job.workspace, for_run=True)
        issues = [] if outcome.ended == "done" else [f"{job.step}: stopped after {outcome.rounds} rounds ({outcome.ended})"]
        return Result(text=outcome.text, files=written, issues=issues)

    async def _talk(self, task: str, workspace: str, *, for_run: bool) -> tuple[Outcome, list[str]]:
        """What became of `task`, and the files written for it."""
        declared = self.declared
        model = self.model(declared.model)
        specs = [TOOLS[name].spec(name) for name in declared.tools]
        said = [Message(role="system", content=declared.instructions), Message(role="user", content=task)]
        by, written = Hands(self, workspace, declared.capabilities, for_run), list[str]()
        used = number = 0
        ended: Literal["done", "rounds", "size"]
        while True:
            number += 1
            answer = await model.chat(said, tools=specs, stream=True)
            if not answer.tool_calls:
                ended = "done"
                break
            said.append(Message(role="assistant", content=answer.text, tool_calls=answer.tool_calls))
            for position, call in enumerate(answer.tool_calls):
                if position < _CALLS_MAX:
                    used += 1
                    result = await self._use(call, by, written)
                else:
                    result = f"not done: at most {_CALLS_MAX} tools at once"
                said.append(Message(role="tool", content=result, tool_call_id=call.id))
            if sum(len(message.content) for message in said) > _TALK_CHARS_MAX:
                ended = "size"
                break
            if number == declared.rounds:
                ended = "rounds"
                break
        outcome = Outcome(text=answer.text, rounds=number, tools_used=used, ended=ended)
        self.emit(TaskEnded(task=task[:_TASK_CHARS_SHOWN], outcome=outcome))
        return outcome, sorted(set(written))

    async def _use(self, call: ToolCall, by: Hands, written: list[str]) -> str:
        """What the model is told about its call. Only what it can mend becomes a text; everything else ends the turn."""
        tool = TOOLS.get(call.name) if call.name in self.declared.tools else None
        outcome: Literal["done", "refused", "wrong"] = "wrong"
        rule = target = ""
        if tool is None:
            text = f"there is no tool {call.name!r}; there are: {', '.join(self.declared.tools) or 'none'}"
        else:
            try:
                used = await use(call.name, by, _arguments(call, tool.arguments))
                text, outcome, rule = used.text, "refused" if used.rule else "done", used.rule
                target = _target(call) if rule else ""
                written += [used.written] if used.written else []
            except msgspec.ValidationError as error:
                text = f"the arguments do not fit: {error}"
            except (Rejected, BadPayload, Unknown, TooLarge, Gone, StepFailed) as error:
                text = error.message
        self.emit(ToolUsed(tool=call.name[:64], call=call.id, outcome=outcome, rule=rule, target=target))
        more = len(text) - _RESULT_CHARS_MAX
        return text if more <= 0 else f"{text[:_RESULT_CHARS_MAX]}\n[{more:,} more characters]"

    def _planning(self, job: Job) -> list[Message]:
        said = [f"Goal: {job.goal}", *(f"Also: {more}" for more in job.instructions), *_answered(job)]
        if job.plan is not None:
            said += [f"The plan so far: {msgspec.json.encode(job.plan).decode()}", f"What should change: {job.feedback}"]
        agents = ", ".join(name for name in self.types_with("work") if name not in OURS)
        return [
            Message(role="system", content=f"{self.declared.instructions}\n{_PLANNING}{agents}."),
            Message(role="user", content="\n".join(said)),
        ]


_PLANNING: Final = """\
You plan, you do not do it yourself. Answer with a plan: a summary for the person who decides about it, and steps. Each step has an id of
letters, digits and dashes, the agent who does it, its task in full sentences, and in `after` the ids of the steps whose results it needs.
Steps that need nothing of each other run at the same time. Agents: """


def _answered(job: Job) -> list[str]:
    return [f"Asked {said.question!r}, the person said: {said.answer}" for said in job.answers]


def _told(job: Job) -> str:
    """What an agent is told of its step."""
    said = [job.task or job.goal]
    if job.task and job.goal:
        said.append(f"It is part of this: {job.goal}")
    said += [*(f"Also: {more}" for more in job.instructions), *_answered(job)]
    for step, result in job.results.items():
        files = f" (files: {', '.join(result.files)})" if result.files else ""
        said.append(f"{step} is done{files}: {result.text[:_RESULT_CHARS_MAX]}")
    return "\n".join(said)


def _target(call: ToolCall) -> str:
    return str(call.arguments.get("path") or call.arguments.get("command") or "")[:PATH_BYTES_MAX]


def _arguments(call: ToolCall, type: type[msgspec.Struct]) -> Any:
    return msgspec.convert(call.arguments, type)
