"""Providers that follow a script, and an agent that asks them: everything above the network, without one."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import msgspec

from actors import Actor, Event, State, command
from actors.models.limits import ProviderLimits
from actors.models.port import OnText
from actors.models.provider import Provider
from actors.models.records import Answer, Failure, Message, Request, Usage
from actors.models.registry import Configured, ProviderRegistry
from events.envelope import Kind
from runtime import App
from runtime.local import LocalRuntime
from runtime.tasks import Tasks
from tests.support.virtual import Virtual, virtually

T = TypeVar("T")
Step = Answer | Failure | str | Callable[[], Any]


def answer(text: str = "yes", *, tokens: tuple[int, int] = (10, 5)) -> Answer:
    return Answer(text=text, provider="scripted", model="m", usage=Usage(input_tokens=tokens[0], output_tokens=tokens[1]))


def down(code: str = "http_503", retry_after_s: float | None = None) -> Failure:
    return Failure(kind="transient", code=code, message="it is down", retry_after_s=retry_after_s)


def refused(code: str = "http_401") -> Failure:
    return Failure(kind="permanent", code=code, message="no")


class ScriptedClient:
    """Adapter of `ModelClient`: says what the script says, then the last of it for ever; keeps a ledger of idempotency keys."""

    def __init__(self, *script: Step) -> None:
        self.script = list(script)
        self.ledger: list[str] = []
        self.requests: list[Request] = []
        self.gate: asyncio.Event | None = None
        self.cancelled = 0

    async def call(self, request: Request, key: str, on_text: OnText) -> Answer | Failure:
        self.ledger.append(key)
        self.requests.append(request)
        if self.gate is not None:
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        said = answer(step) if isinstance(step, str) else step() if callable(step) else step
        if isinstance(said, Answer):
            for word in said.text.split(" "):
                on_text(word)
        return said

    async def close(self) -> None:
        pass


class AgentState(State):
    said: str = ""


class Said(Event[AgentState], tag="agent.said"):
    text: str

    def apply(self, state: AgentState) -> None:
        state.said = self.text


class Shape(State):
    colour: str
    sides: int


class Agent(Actor[AgentState], name="agent"):
    """Asks a model what it is asked."""

    @command
    async def ask(
        self, text: str, model: str = "main", deadline_s: float = 300.0, stream: bool = False, max_tokens: int = 4_000
    ) -> str:
        message = Message(role="user", content=text)
        said = await self.model(model).chat([message], deadline_s=deadline_s, stream=stream, max_tokens=max_tokens)
        self.emit(Said(text=said.text))
        return said.text

    @command
    async def shape(self, text: str) -> Shape:
        return await self.model("main").ask_for(Shape, [Message(role="user", content=text)])


APP = App(actors=[Agent, Provider])


class World:
    """Agents, their providers as actors, and scripted clients behind them."""

    def __init__(self, clients: Mapping[str, ScriptedClient], limits: Mapping[str, ProviderLimits]) -> None:
        self.clients = dict(clients)
        names = list(clients)
        self.registry = ProviderRegistry(
            {
                name: Configured(
                    client=client, limits=limits.get(name, ProviderLimits()), fallbacks=tuple(names[1:]) if name == "main" else ()
                )
                for name, client in clients.items()
            },
            Tasks().spawn,
        )
        self.limits = limits

    async def play(self, virtual: Virtual, act: Callable[[LocalRuntime], Awaitable[T]], *, killed: bool = False) -> T:
        """`act` with a runtime. killed: its process dies at the end, else it is left in order."""
        async with virtual.runtime(APP, self.registry, killed=killed) as runtime:
            for name, limits in self.limits.items():
                await runtime.ask(f"provider/{name}", "configure", limits=msgspec.to_builtins(limits))
            return await act(runtime)

    def run(self, act: Callable[[LocalRuntime], Awaitable[T]], *, seed: int = 1) -> T:
        """`act` with a runtime, on virtual time from its start to its end."""
        return virtually(lambda virtual: self.play(virtual, act), seed=seed)


def world(**clients: ScriptedClient) -> World:
    """Without bounds; the first client is ``main``, the others stand in for it."""
    return World(clients, {})


def events_of(virtual: Virtual, stream: str) -> list[str]:
    """Types of the recorded state events of a stream, in order."""
    return [event.type for event in virtual.log.content(0).events if event.stream == stream and event.kind is Kind.STATE]
