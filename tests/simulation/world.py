"""One run: workers, clients, faults and the end, all drawn from one seed."""

import asyncio
import logging
import random
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, Final, cast
from unittest import mock

import msgspec
import structlog

from actors.errors import ActorError, Waiting
from events.ids import StreamId, stream_id
from events.in_memory.store_memory import MemoryLog
from events.letters import LetterState
from runtime.client import Client
from runtime.over_nats.client_nats import NatsLink
from runtime.passivation import LiveBounds
from runtime.wire import Subjects
from tests.simulation.chaos import FAULTS, Chaos
from tests.support.logs import SeededEntropy
from tests.support.sim_bank import ACCOUNTS
from tests.support.sim_exchange import SimBroker, SimConnection, Weather
from tests.support.sim_history import Answered, Ended, History, Live, Operation, Tell
from tests.support.sim_loop import PROCESS, Process, SimClock, SimLoop, SimulationError
from tests.support.sim_worker import Disk, World

SHARDS: Final = 3
_SETTLE_S: Final = 240.0
_MODULES: Final = ("runtime.cell", "runtime.turns", "runtime.turns.outcomes")


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What kind of run a seed is: each stresses something else."""

    workers: int
    clients: int
    tellers: int
    operations: int
    weather: Weather
    disk: Disk
    chaos: float
    """Mean seconds between two faults; 0 = none."""
    mapped: bool
    snapshot_every: int
    disorder: float


def plan_of(chance: random.Random) -> Plan:
    weather = Weather(
        drop=chance.choice((0.0, 0.02, 0.15)), repeat=chance.choice((0.0, 0.05, 0.3)), slow=chance.choice((0.0, 0.02, 0.1)),
        delay_s=chance.choice((0.001, 0.02, 0.3)),
    )  # fmt: skip
    disk = Disk(delay_s=chance.choice((0.0, 0.002, 0.05)), slow=chance.choice((0.0, 0.0, 0.02)))
    return Plan(
        workers=chance.randint(2, 4), clients=chance.randint(2, 4), tellers=chance.randint(0, 2), operations=chance.randint(4, 9),
        weather=weather, disk=disk, chaos=chance.choice((0.0, 0.3, 1.0, 3.0)), mapped=chance.random() < 0.8,
        snapshot_every=chance.choice((3, 8, 500)), disorder=0.0,
    )  # fmt: skip


class Run:
    """One seed."""

    def __init__(self, seed: int, verbose: bool, faults: Mapping[str, int]) -> None:
        chance = random.Random(seed)
        self.plan = plan = plan_of(chance)
        self.history = History(seed=seed)
        self.trace_lines: list[str] = []
        self._verbose = verbose
        self.loop = SimLoop(chance, disorder=plan.disorder)
        self.loop.set_exception_handler(self._on_loop_error)
        clock = SimClock(self.loop)
        entropy = SeededEntropy(seed)
        subjects = Subjects("cue", SHARDS)
        broker = SimBroker(self.loop, chance, subjects, plan.weather, self.trace, mapped=plan.mapped)
        self.world = World(
            loop=self.loop, chance=chance, clock=clock, entropy=entropy, log=MemoryLog(SHARDS, clock=clock, entropy=entropy),
            broker=broker, subjects=subjects, disk=plan.disk, history=self.history, trace=self.trace, threads=ThreadPoolExecutor(1),
            bounds=LiveBounds(idle_s=chance.choice((0.5, 5.0, 300.0)), actors=chance.choice((1, 3, 10_000))),
        )  # fmt: skip
        self.chaos = Chaos(self.world, plan.workers, plan.chaos, faults)
        self._accounts = chance.sample(ACCOUNTS, chance.choice((2, 2, 3, 5)))
        """Few of them, so that their paths cross."""
        self._people = Process("clients")
        self.loop.add(self._people)

    def trace(self, what: str, detail: str = "") -> None:
        if self._verbose:
            process = PROCESS.get()
            self.trace_lines.append(f"{self.loop.time():9.4f} {process.name if process else 'world':8} {what:12} {detail}")

    def log(self, _logger: Any, _name: str, event: MutableMapping[str, Any]) -> str:
        """A structlog processor: what the runtime logs is part of the trace."""
        error = event.pop("exc_info", None)
        self.trace("logs", f"{event} {error!r}" if error else f"{event}")
        raise structlog.DropEvent

    def _on_loop_error(self, _loop: Any, context: dict[str, Any]) -> None:
        if not self.loop.cleaning:
            self.history.problems.append(f"reported to the loop: {context.get('message')}: {context.get('exception')!r}")

    def execute(self) -> History:
        try:
            self.loop.run_until_complete(self._main())
        except SimulationError as error:
            self.history.problems.append(str(error))
        finally:
            self._collect()
            self._clean()
        return self.history

    async def _main(self) -> None:
        link = NatsLink(cast(Any, SimConnection(self.world.broker, self._people)))
        await self._people.start(link.start())
        client = Client(link, clock=self.world.clock, entropy=self.world.entropy)
        await self.chaos.begin()
        clients = [self._people.start(self._client(client, number)) for number in range(self.plan.clients)]
        clients += [self._people.start(self._teller(client, number)) for number in range(self.plan.tellers)]
        person = self._people.start(self._say_what_became_of_parked_steps(client))
        faults = asyncio.get_running_loop().create_task(self.chaos.run())
        await self._all(clients, 120.0)
        self.chaos.heal()
        await faults
        await self._all(clients, _SETTLE_S + self.world.clock.swing_s)
        if not all(task.done() for task in clients):
            self.history.problems.append("a client waits for ever")
            return
        for task in clients:
            task.result()
        await self._settle()
        await self._people.start(self._take_care_of_dead_letters(client))
        person.cancel()
        await self._people.start(self._look(client))

    async def _all(self, tasks: list[asyncio.Task[Any]], timeout_s: float) -> None:
        await asyncio.wait(tasks, timeout=timeout_s)

    # -- clients ------------------------------------------------------------------------------------------------------------------

    async def _client(self, client: Client, number: int) -> None:
        chance = self.world.chance
        everything: list[asyncio.Task[None]] = []
        for k in range(self.plan.operations):
            await asyncio.sleep(chance.random() * chance.choice((0.0, 0.05, 1.0)))
            operations = [self._draw(f"c{number}-{k}")]
            if operations[0].method == "transfer" and chance.random() < 0.4:
                # Several at once on one way: their sends may overtake each other.
                small = {**operations[0].arguments, "cents": 1}
                operations += [
                    msgspec.structs.replace(operations[0], command_id=f"c{number}-{k}-{n}", arguments=small, answers=[]) for n in range(3)
                ]
            if operations[0].method == "meet":
                # Both at once, or they seldom wait for each other.
                back = {"stream": f"audit/{operations[0].arguments['other']}", "arguments": {"other": operations[0].stream[-2:]}}
                operations.append(msgspec.structs.replace(operations[0], command_id=f"c{number}-{k}-back", answers=[], **back))
            self.history.operations += operations
            same = 2 if chance.random() < 0.15 else 1
            asked = [self._people.start(self._ask(client, operation)) for operation in operations for _ in range(same)]
            everything += asked
            if not operations[0].query and chance.random() < 0.1:
                everything.append(self._people.start(self._cancel(client, operations[0])))
            if chance.random() < 0.6:
                await asyncio.wait(asked)
        for task in everything:
            await task

    def _draw(self, command_id: str) -> Operation:
        chance = self.world.chance
        method = chance.choices(
            (
                "deposit", "deposit_parts", "withdraw", "transfer", "balance", "work", "work_together", "plan", "job", "audit",
                "deposit_and_fail", "promise", "decide", "meet", "charge",
            ),
            (5, 2, 4, 6, 2, 3, 2, 1, 1, 3, 1, 1, 2, 2, 2),
        )[0]  # fmt: skip
        stream, arguments = f"account/{chance.choice(self._accounts)}", dict[str, Any]()
        if method in ("deposit", "withdraw", "deposit_and_fail"):
            arguments = {"cents": chance.randint(1, 50)}
        elif method == "deposit_parts":
            arguments = {"parts": [chance.randint(1, 9) for _ in range(chance.randint(2, 4))]}
        elif method == "transfer":
            arguments = {"to": chance.choice(self._accounts), "cents": chance.randint(1, 30)}
        elif method == "audit":
            stream, arguments = f"audit/u{chance.randint(0, 1)}", {"accounts": chance.sample(self._accounts, chance.randint(1, 2))}
        elif method == "meet":
            me = chance.randint(0, 1)
            stream, arguments = f"audit/u{me}", {"other": f"u{1 - me}"}
        elif method != "balance":
            key = f"w{chance.randint(0, 1)}"
            stream, arguments = f"labour/{key}", {"job": f"{key}.{command_id}"}
            if method in ("work", "work_together"):
                arguments["steps"] = chance.randint(1, 4)
            if method == "promise":
                arguments["delay_ms"] = chance.choice((0, 100, 3_000))
            if method == "decide":
                arguments["timeout_ms"] = chance.choice((100, 4_000, 20_000))
            if method in ("work", "plan"):
                arguments["pay"] = chance.choice(self._accounts)
        query = method in ("balance", "job")
        return Operation(command_id=command_id, stream=stream, method=method, arguments=arguments, query=query)

    async def _ask(self, client: Client, operation: Operation) -> None:
        """Ask under one id until the outcome is known; what was certainly not done is sometimes asked again too."""
        chance = self.world.chance
        again = chance.random() < 0.3
        while True:
            timeout_s = chance.choice((0.5, 3.0, 30.0))
            answer = await self._ask_once(client, operation, timeout_s)
            operation.answers.append(answer)
            self.trace("hears", f"{operation.command_id}: {answer.body!r} {answer.number or ''} {answer.message}")
            if answer.outcome == "done" or (operation.resolved and not again):
                return
            again = answer.outcome == "unknown" and again
            await asyncio.sleep(chance.random() * 2)

    async def _ask_once(self, client: Client, operation: Operation, timeout_s: float) -> Answered:
        chance = self.world.chance
        self.trace("asks", f"{operation.stream}.{operation.method} {operation.command_id} {operation.arguments} for {timeout_s} s")
        stream = stream_id(*operation.stream.split("/"))
        try:
            body = await client.ask(stream, operation.method, operation.arguments, timeout_s, operation.command_id)
        except ActorError as error:
            if isinstance(error, Waiting) and chance.random() < 0.8:
                wait_id = str(error.fields["wait_id"])
                # Several may answer; one of them wins.
                tasks = [self._people.start(self._answer(client, operation, wait_id, value)) for value in ("yes", "no")]
                await asyncio.wait(tasks[: chance.randint(1, 2)])
            return Answered(self.loop.time(), None, error.number, error.outcome, error.message)
        return Answered(self.loop.time(), body)

    async def _answer(self, client: Client, operation: Operation, wait_id: str, value: str) -> None:
        stream = stream_id(*operation.stream.split("/"))
        try:
            await client.ask(stream, "_answer", {"wait_id": wait_id, "value": value}, 10.0, None)
            status = "won"
        except ActorError as error:
            status = f"{error.number} {error.outcome}"
        self.trace("answered", f"{operation.command_id} {wait_id} {value}: {status}")
        self.history.answered.append(Ended(stream=operation.stream, id=wait_id, status=status, value=value))

    async def _teller(self, client: Client, number: int) -> None:
        """One tell after another to one account, each kept before the next is sent: their order is known. And some that may fail."""
        chance = self.world.chance
        account = f"account/{chance.choice(self._accounts)}"
        for n in range(1, self.plan.operations + 1):
            await asyncio.sleep(chance.random() * chance.choice((0.0, 0.05, 1.0)))
            await self._tell(client, Tell(stream=account, command_id=f"t{number}-{n}", method="told"), sender=f"t{number}", n=n)
            if chance.random() < 0.3:
                poor = Tell(stream=f"account/{chance.choice(self._accounts)}", command_id=f"p{number}-{n}", method="nudge")
                await self._tell(client, poor, by=f"p{number}-{n}")

    async def _tell(self, client: Client, tell: Tell, **arguments: Any) -> None:
        self.history.tells.append(tell)
        while not tell.kept:
            try:
                await client.tell(stream_id(*tell.stream.split("/")), tell.method, arguments, tell.command_id, 3.0)
                tell.kept = True
            except ActorError as error:
                self.trace("not kept", f"{tell.command_id}: {error.number} {error.message}")
                await asyncio.sleep(self.world.chance.random())
        self.trace("kept", f"{tell.stream}.{tell.method} {tell.command_id}")

    async def _say_what_became_of_parked_steps(self, client: Client) -> None:
        """S21: a person looks which questions stand in the log, as ``cuebook waits`` shows them, and answers: again, or this came of it."""
        chance = self.world.chance
        while True:
            await asyncio.sleep(0.2 + chance.random() * chance.choice((0.5, 5.0)))
            waits = [wait for number in range(SHARDS) for wait in self.world.log.content(number).waits.values()]
            for wait in waits:
                if wait.name.startswith("once:"):
                    value = chance.choice(({"repeat": True}, {"result": f"{wait.command_id}#said"}))
                    self.chaos.counts["parked"] += 1
                    await self._say(client, wait.stream, wait.wait_id, value)

    async def _say(self, client: Client, stream: StreamId, wait_id: str, value: dict[str, Any]) -> None:
        try:
            await client.ask(stream, "_answer", {"wait_id": wait_id, "value": value}, 10.0, None)
            self.trace("says", f"{stream} {wait_id}: {value}")
        except ActorError as error:
            self.trace("says", f"{stream} {wait_id}: {error.number} {error.message}")

    async def _take_care_of_dead_letters(self, client: Client) -> None:
        """What failed five times is tried again by a person, or dropped, until nothing is left (design.md 6)."""
        chance = self.world.chance
        for _ in range(5):
            contents = [self.world.log.content(number) for number in range(SHARDS)]
            letters = [letter for content in contents for letter in content.letters.values() if letter.state is LetterState.DEAD]
            if not letters:
                return
            for letter in letters:
                self.chaos.counts["dead letter"] += 1
                drop = chance.random() < 0.3
                method = "_drop" if drop else "_retry"
                try:
                    body = await client.ask(letter.stream, method, {"command_ids": [letter.command_id]}, 60.0, None)
                except ActorError as error:
                    self.history.problems.append(f"{letter.stream}.{method} does not answer: {error.message}")
                    return
                self.trace(method, f"{letter.stream} {letter.command_id}: {body!r}")
                if drop and letter.command_id in msgspec.json.decode(body)["done"]:
                    self.history.dropped.add(letter.command_id)
            await self._settle()
        self.history.problems.append("dead letters do not come to an end")

    async def _cancel(self, client: Client, operation: Operation) -> None:
        await asyncio.sleep(self.world.chance.choice((0.0, 0.1, 2.0)))
        stream = stream_id(*operation.stream.split("/"))
        try:
            body = await client.ask(stream, "_cancel", {"command_id": operation.command_id}, 10.0, None)
            status = str(msgspec.json.decode(body)["status"])
        except ActorError as error:
            status = f"{error.number} {error.outcome}"
        self.trace("cancelled", f"{operation.command_id}: {status}")
        self.history.cancelled.append(Ended(stream=operation.stream, id=operation.command_id, status=status))

    # -- the end ------------------------------------------------------------------------------------------------------------------

    async def _settle(self) -> None:
        """Until nothing is on its way any more: no open turn, no unsent row, nobody busy."""
        until = self.loop.time() + _SETTLE_S + self.world.clock.swing_s
        while self.loop.time() < until:
            await asyncio.sleep(1.0)
            if self.chaos.settled() and not self._open():
                return
        self.history.problems.append(f"it does not settle: {self._open() or 'a worker stays busy'}")

    def _open(self) -> list[str]:
        contents = [self.world.log.content(number) for number in range(SHARDS)]
        unfinished = [
            f"{row.stream} {row.command_id} {row.status}"
            for content in contents
            for row in content.inbox.values()
            if row.completed_at_us is None
        ]
        kept = [f"kept by JetStream {subject}" for subject, _ in self.world.broker.jetstream.messages.values()]
        return unfinished + kept + [f"unsent {key}" for content in contents for key in (*content.outbox, *content.timers)]

    async def _look(self, client: Client) -> None:
        """What every actor says of itself."""
        streams = {event.stream for number in range(SHARDS) for event in self.world.log.content(number).events}
        for stream in sorted(streams):
            try:
                body = await client.ask(stream, "_state", {}, 60.0, None)
            except ActorError as error:
                self.history.problems.append(f"{stream} does not answer at the end: {error.message}")
            else:
                self.history.live[stream] = msgspec.json.decode(body, type=Live)

    def _collect(self) -> None:
        history = self.history
        history.copied = set(self.world.broker.copied)
        for number in range(SHARDS):
            content = self.world.log.content(number)
            history.events[number] = list(content.events)
            history.inbox.extend(content.inbox.values())
            history.unsent += len(content.outbox)
        history.counts = {**self.chaos.counts, "redelivery": self.world.broker.jetstream.redelivered}
        history.steps, history.seconds = self.loop.steps, self.loop.time()

    def _clean(self) -> None:
        """End what is still open, so that nothing of it runs when it is collected."""
        self.loop.cleaning = True
        self.world.disk.delay_s = self.world.disk.slow = 0.0
        try:
            for _ in range(5):
                tasks = asyncio.all_tasks(self.loop)
                if not tasks:
                    break
                for task in tasks:
                    task.cancel()
                self.loop.run_until_complete(asyncio.wait(tasks, timeout=1.0))
        except SimulationError:
            pass
        for task in asyncio.all_tasks(self.loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        self.world.threads.shutdown()
        self.loop.close()


@contextmanager
def _settings(run: Run) -> Iterator[None]:
    """Small snapshots, and the runtime's own log lines in the trace."""
    before = structlog.get_config()
    structlog.configure(
        processors=[run.log], wrapper_class=structlog.make_filtering_bound_logger(logging.INFO if run._verbose else logging.CRITICAL)
    )
    with ExitStack() as stack:
        for name in _MODULES:
            module = sys.modules.get(name)
            for constant, value in (("SNAPSHOT_EVENTS", run.plan.snapshot_every), ("STATE_HASH_EVERY", 3)):
                if hasattr(module, constant):
                    stack.enter_context(mock.patch.object(module, constant, value))
        try:
            yield
        finally:
            structlog.configure(**before)


def simulate(seed: int, *, verbose: bool = False, faults: Mapping[str, int] = FAULTS) -> tuple[History, list[str]]:
    """Run `seed` to its end; the trace is empty unless `verbose`. faults: what may go wrong, by its weight."""
    run = Run(seed, verbose, faults)
    with _settings(run):
        return run.execute(), run.trace_lines
