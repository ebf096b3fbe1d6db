"""What goes wrong: workers killed, paused, resumed, shards stolen and handed over, cables pulled, failing disks. And who repairs it."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from contextvars import Context
from functools import partial
from typing import Final

from events.in_memory.content_memory import Fault
from tests.support.sim_worker import SimWorker, World

_LOOK_S: Final = 0.25
_TAKE_S: Final = 8.0
"""A take that has not come to its end by then is given to another worker."""


FAULTS: Final = {"kill": 3, "pause": 4, "steal": 3, "hand_over": 2, "end": 1, "cut": 2, "inject": 5, "fill": 1, "set_clock": 1}
"""What goes wrong, and how often in relation to the others."""


class Chaos:
    """Who owns what, and every fault. Runs outside of all processes."""

    def __init__(self, world: World, workers: int, mean_s: float, faults: Mapping[str, int]) -> None:
        self._faults = faults
        self._world = world
        self._names = 0
        self._count = workers
        self._mean_s = mean_s
        self._healed = False
        self.workers: list[SimWorker] = []
        self._owner: dict[int, tuple[SimWorker, float]] = {}
        self._moving: set[int] = set()
        self._stopped: dict[str, float] = {}
        self.counts: Counter[str] = Counter()
        self._context = Context()

    def _note(self, what: str, detail: str) -> None:
        self.counts[what] += 1
        self._world.trace(what.upper(), detail)

    async def begin(self) -> None:
        for _ in range(self._count):
            self._new_worker()
        self._world.loop.create_task(self._watch())

    def _new_worker(self) -> None:
        self._names += 1
        worker = SimWorker(self._world, f"w{self._names}")
        self.workers.append(worker)
        worker.start(worker.begin(), "begin")

    # -- placement ----------------------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Every shard gets an owner, some time after it lost the last one."""
        while True:
            for number in range(self._world.log.shards):
                if number not in self._moving and not self._is_owned(number):
                    self._give(number, self._anyone())
            await asyncio.sleep(_LOOK_S)

    def _is_owned(self, number: int) -> bool:
        held = self._owner.get(number)
        if held is None:
            return False
        worker, since = held
        if not worker.process.alive:
            return False
        if worker.owns(number):
            return not worker.process.paused or self._world.loop.time() - since < _TAKE_S
        return self._world.loop.time() - since < _TAKE_S and number in worker.seats

    def _anyone(self, but: SimWorker | None = None) -> SimWorker | None:
        able = [worker for worker in self.workers if worker.process.alive and not worker.process.paused and worker.ready]
        able = [worker for worker in able if not worker.ending]
        able = [worker for worker in able if worker is not but] or able
        return self._world.chance.choice(able) if able else None

    def _give(self, number: int, worker: SimWorker | None) -> None:
        if worker is None:
            return
        self._owner[number] = (worker, self._world.loop.time())
        worker.start(worker.take(number), f"take {number}")

    # -- faults -------------------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        chance = self._world.chance
        while not self._healed:
            await asyncio.sleep(chance.expovariate(1 / self._mean_s) if self._mean_s else 1.0)
            if self._mean_s and not self._healed:
                getattr(self, f"_{chance.choices(list(self._faults), list(self._faults.values()))[0]}")()

    def _kill(self) -> None:
        living = [worker for worker in self.workers if worker.process.alive]
        if not living:
            return
        worker = self._world.chance.choice(living)
        self._note("kill", worker.name)
        worker.process.alive = False
        self._world.broker.disconnect(worker.process)
        self._later(self._world.chance.random() * 3, self._new_worker)

    def _pause(self) -> None:
        running = [worker for worker in self.workers if worker.process.alive and not worker.process.paused]
        if len(running) < 2:
            return
        worker = self._world.chance.choice(running)
        self._note("pause", worker.name)
        self._stop(worker)
        if self._world.chance.random() < 0.5:
            # Its shards go to others at once, so that it wakes up as a zombie.
            for number, (owner, _) in list(self._owner.items()):
                if owner is worker:
                    self._give(number, self._anyone())
        self._later(self._world.chance.random() * self._world.chance.choice((0.1, 2.0, 15.0)), self._resume, worker)

    def _stop(self, worker: SimWorker) -> None:
        worker.process.paused = True
        self._stopped[worker.name] = self._world.loop.time()

    def _resume(self, worker: SimWorker) -> None:
        if worker.process.paused:
            self._note("resume", worker.name)
            worker.process.paused = False
            worker.woke(self._world.loop.time() - self._stopped.pop(worker.name))

    def _steal(self) -> None:
        number = self._world.chance.randrange(self._world.log.shards)
        held = self._owner.get(number)
        thief = self._anyone(held[0] if held else None)
        if thief is not None and number not in thief.seats:
            self._note("steal", f"shard {number} for {thief.name}")
            if held is not None and not held[0].process.paused:
                # Its loop is stuck, or nobody would have taken it for stalled (S1).
                self._stop(held[0])
                self._later(self._world.chance.random() * 3, self._resume, held[0])
            self._give(number, thief)

    def _hand_over(self) -> None:
        number = self._world.chance.randrange(self._world.log.shards)
        held = self._owner.get(number)
        heir = self._anyone(held[0] if held else None)
        if held is None or heir is None or heir is held[0] or number in self._moving or not held[0].owns(number):
            return
        owner = held[0]
        self._note("hand over", f"shard {number} from {owner.name} to {heir.name}")
        self._moving.add(number)

        def done() -> None:
            if number in self._moving:
                self._moving.discard(number)
                self._world.loop.call_soon(self._give, number, heir if heir.process.alive else self._anyone(), context=self._context)

        drain_s = self._world.chance.choice((0.01, 1.0, 10.0))
        owner.start(owner.hand_over(number, heir, drain_s, done), f"hand over {number}")
        self._later(12.0, done)  # whoever died meanwhile

    def _end(self) -> None:
        """A worker is stopped as users do it, and another one starts: every shard is handed over."""
        running = [worker for worker in self.workers if worker.process.alive and worker.ready and not worker.ending]
        if len(running) < 2:
            return
        worker = self._world.chance.choice(running)
        worker.ending = True
        self._note("end", worker.name)
        numbers = [number for number in worker.seats if number not in self._moving]
        left = set(numbers)
        drain_s = self._world.chance.choice((0.01, 1.0, 10.0))

        def handed(number: int, heir: SimWorker | None) -> None:
            if number not in left:
                return
            left.discard(number)
            self._moving.discard(number)
            if worker.process.alive and not worker.process.paused:
                self._world.loop.call_soon(self._give, number, heir or self._anyone(), context=self._context)
            if not left:
                gone()

        def gone() -> None:
            if worker.process.alive:
                worker.process.alive = False
                self._world.broker.disconnect(worker.process)
            self._later(self._world.chance.random() * 3, self._new_worker)

        for number in numbers:
            heir = self._anyone(worker)
            self._moving.add(number)
            worker.start(worker.hand_over(number, heir, drain_s, partial(handed, number, heir)), f"hand over {number}")
            self._later(15.0, handed, number, None)  # it was paused, or killed
        if not numbers:
            gone()

    def _cut(self) -> None:
        worker = self._world.chance.choice(self.workers)
        self._note("cut", worker.name)
        self._world.broker.cut.add(worker.process)
        self._later(self._world.chance.random() * 8, self._world.broker.cut.discard, worker.process)

    def _inject(self) -> None:
        fault = self._world.chance.choice(list(Fault))
        number = self._world.chance.randrange(self._world.log.shards)
        self._note(f"fault {fault}", f"shard {number}")
        self._world.log.inject(number, fault)

    def _fill(self) -> None:
        """A full disk for a while: every shard, several commits."""
        self._note("fill", "")
        for number in range(self._world.log.shards):
            for _ in range(self._world.chance.randint(1, 4)):
                self._world.log.inject(number, Fault.FULL)

    def _set_clock(self) -> None:
        seconds = self._world.chance.choice((-600.0, -5.0, -0.1, 0.1, 5.0, 600.0))
        self._note("clock step", f"{seconds} s")
        self._world.clock.step(seconds)

    def _later(self, delay_s: float, function: Callable[..., object], *args: object) -> None:
        self._world.loop.call_later(delay_s, function, *args, context=self._context)

    # -- the end of all faults ----------------------------------------------------------------------------------------------------

    def heal(self) -> None:
        """No more faults: everybody runs, every message arrives."""
        self._note("heal", "")
        self._healed = True
        for worker in self.workers:
            self._resume(worker)
        self._world.broker.cut.clear()
        weather = self._world.broker.weather
        weather.drop = weather.slow = 0.0
        for number in range(self._world.log.shards):
            self._world.log.content(number).faults.clear()

    def settled(self) -> bool:
        """Every shard has its owner, and no owner has anything to do."""
        living = [worker for worker in self.workers if worker.process.alive]
        owned = [sum(worker.owns(number) for worker in living) for number in range(self._world.log.shards)]
        return owned == [1] * len(owned) and not any(worker.busy() for worker in living)
