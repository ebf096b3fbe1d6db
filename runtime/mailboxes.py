"""What waits for one actor: bounded, in classes, fair between senders, in order per sender (S25).

Control comes before people, people before agents, agents before bulk. Within a class the senders take turns, so a flood by one of them
costs the others one turn each; what one sender sent keeps its order. A lower class is passed over at most `BYPASS_MAX` times in a row,
because a tell that is accepted must be handled some day.

A full mailbox refuses who has the most in it: a sender that holds less than the longest queue takes the place of that queue's newest ask
(longest-queue drop under stochastic fairness queueing, McKenney, INFOCOM 1990). What stands in the inbox is never refused; it is bounded
by what is loaded from there.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from enum import IntEnum

from actors.turn import Command
from events.limits import BYPASS_MAX, MAILBOX_MAX
from events.store import InboxStatus
from runtime.items import Item


class MailClass(IntEnum):
    """In order of precedence. Nobody states a class: it follows from who asks, so that nobody can claim a better one."""

    CONTROL = 0
    """Methods of ours: their names start with ``_``."""
    PEOPLE = 1
    """Asks from outside: somebody waits for the answer."""
    AGENTS = 2
    """Asks, sends and timers of actors."""
    BULK = 3
    """Tells from outside: they are kept, and nobody waits."""


class _Lane:
    """One sender's share of one class. asks: how many of `items` are not kept in the inbox."""

    __slots__ = ("asks", "items", "key")

    def __init__(self, key: "LaneKey") -> None:
        self.key = key
        self.items: deque[Item] = deque()
        self.asks = 0


LaneKey = tuple[MailClass, str]


def class_of(command: Command, stored: InboxStatus | None) -> MailClass:
    if command.method.startswith("_"):
        return MailClass.CONTROL
    if command.sender is not None:
        return MailClass.AGENTS
    return MailClass.PEOPLE if stored is None else MailClass.BULK


def lane_of(item: Item) -> LaneKey:
    """Who takes turns with whom. A client is known by the prefix of its reply subjects; tells from outside name nobody, so they are one
    sender, in the order of their JetStream stream (S11)."""
    command = item.command
    return class_of(command, item.stored), command.sender or command.client


class Mailbox:
    """The commands that one actor has not begun. Not a queue of asyncio: the actor's own task takes from it, nobody waits in it.

    ready: how many may be taken now; the rest is `held`, by sender. Slots are made when they are needed: most live actors are idle, and
    a mailbox that never holds more than one command is a few pointers.
    """

    __slots__ = ("_asks", "_bypassed", "_first", "_front", "_lanes", "_rings", "held", "ready")

    def __init__(self) -> None:
        self.ready = 0
        self._asks = 0
        self._first: Item | None = None
        self._front: deque[Item] | None = None
        self._rings: tuple[deque[_Lane], ...] | None = None
        self._lanes: dict[LaneKey, _Lane] = {}
        self.held: dict[LaneKey, deque[Item]] | None = None
        self._bypassed = 0

    def __len__(self) -> int:
        return self.ready + (sum(map(len, self.held.values())) if self.held else 0)

    def __iter__(self) -> Iterator[Item]:
        """Everything, held or not; what one sender sent comes in its order."""
        yield from self._ready()
        for held in (self.held or {}).values():
            yield from held

    def _ready(self) -> Iterator[Item]:
        if self._front:
            yield from self._front
        if self._first is not None:
            yield self._first
        for lane in self._lanes.values():
            yield from lane.items

    # -- putting in ---------------------------------------------------------------------------------------------------------------

    def append(self, item: Item) -> None:
        """Queue `item` behind what its sender has here already."""
        if self.held is not None and item.stored is InboxStatus.QUEUED and (held := self.held.get(lane_of(item))) is not None:
            held.append(item)
            return
        if self.ready == 0:
            self._first = item
            self._count(item)
            return
        self._count(item)
        self._spread()
        self._to_lane(item)

    def appendleft(self, item: Item) -> None:
        """Put back what was taken and has to be decided again, before everything else."""
        self._in_front().appendleft(item)
        self._count(item)

    def extendleft(self, items: Iterable[Item]) -> None:
        """`appendleft` of each, so that the last comes first, as in a deque."""
        for item in items:
            self.appendleft(item)

    def _count(self, item: Item) -> None:
        # As it is now: an ask may come to stand in the inbox while it waits.
        item.counted = item.stored is None
        self.ready += 1
        self._asks += item.counted

    def _uncount(self, item: Item) -> None:
        self.ready -= 1
        self._asks -= item.counted
        item.lane = None

    def _in_front(self) -> deque[Item]:
        if self._front is None:
            self._front = deque()
        return self._front

    def _spread(self) -> None:
        """From one command to many: the first takes its place in its lane."""
        if self._first is not None:
            first, self._first = self._first, None
            self._to_lane(first)

    def _to_lane(self, item: Item) -> None:
        if item.stored is InboxStatus.RUNNING:
            # An open turn holds its actor: nothing else may be decided before it (S15).
            self._in_front().append(item)
            return
        lane = item.lane = self._lane(lane_of(item))
        lane.items.append(item)
        lane.asks += item.counted

    def _lane(self, key: "LaneKey") -> _Lane:
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane(key)
            self._ring(key[0]).append(lane)
        return lane

    def _ring(self, mail_class: MailClass) -> deque[_Lane]:
        if self._rings is None:
            self._rings = tuple(deque() for _ in MailClass)
        return self._rings[mail_class]

    # -- taking out ---------------------------------------------------------------------------------------------------------------

    def popleft(self) -> Item:
        """The next one. Raises IndexError if none is ready."""
        if self._front:
            item = self._front.popleft()
        elif self._first is not None:
            item, self._first = self._first, None
        else:
            item = self._next()
        self._uncount(item)
        return item

    def _next(self) -> Item:
        ring = next((ring for ring in self._rings or () if ring), None)
        if ring is None:
            raise IndexError("nothing is ready")
        if len(ring) == len(self._lanes):
            self._bypassed = 0
        elif self._bypassed < BYPASS_MAX:
            self._bypassed += 1
        else:
            self._bypassed = 0
            ring = next(ring for ring in reversed(self._rings or ()) if ring)
        lane = ring[0]
        item = lane.items.popleft()
        lane.asks -= item.counted
        if not lane.items:
            ring.popleft()
            del self._lanes[lane.key]
        elif len(ring) > 1:
            ring.rotate(-1)
        return item

    def take_all(self) -> list[Item]:
        """Everything, held or not, in the order of `__iter__`; the mailbox is empty afterwards."""
        waiting = list(self)
        self._first = self._front = self._rings = self.held = None
        self._lanes = {}
        self.ready = self._asks = self._bypassed = 0
        for item in waiting:
            item.lane = None
        return waiting

    def trim(self) -> None:
        """Give back the memory that a busy time needed, if nothing waits."""
        if self._rings is not None and not self.ready and self.held is None:
            self._front = self._rings = None
            self._lanes = {}

    # -- bounds -------------------------------------------------------------------------------------------------------------------

    @property
    def stored(self) -> int:
        """How many stand in the inbox too."""
        return len(self) - self._asks

    @property
    def full(self) -> bool:
        return self._asks >= MAILBOX_MAX

    def displaced_by(self, item: Item) -> Item | None:
        """For a full mailbox: the ask that makes room for `item`, taken out, or None if its sender has its share already.

        A command of ours is always let in: it is how a person gets at an actor that is flooded.
        """
        self._spread()
        key = lane_of(item)
        own = self._lanes.get(key)
        after = (own.asks if own is not None else 0) + 1
        if key[0] is not MailClass.CONTROL and after * len(self._lanes) > self._asks:
            return None  # above the average already, so not below the longest
        longest = max(self._lanes.values(), key=lambda lane: lane.asks, default=None)
        if longest is None or (longest.asks <= after and key[0] is not MailClass.CONTROL) or longest.key[0] is MailClass.CONTROL:
            return None
        victim = next(waiting for waiting in reversed(longest.items) if waiting.counted)
        self.remove(victim)
        return victim

    def remove(self, item: Item) -> None:
        """Take `item` out, wherever it stands among what is ready. Raises ValueError if it is not there."""
        if self._first is item:
            self._first = None
        elif item.lane is not None:
            lane: _Lane = item.lane
            lane.items.remove(item)
            lane.asks -= item.counted
            if not lane.items:
                del self._lanes[lane.key]
                self._ring(lane.key[0]).remove(lane)
        elif self._front is not None:
            self._front.remove(item)
        else:
            raise ValueError("not in this mailbox")
        self._uncount(item)

    # -- holding back a sender ----------------------------------------------------------------------------------------------------

    def hold(self, item: Item) -> None:
        """`item`, which was taken out, waits; so does what its sender has in the inbox behind it. Asks and other senders pass."""
        key = lane_of(item)
        self._spread()
        behind = [waiting for waiting in self._ready() if waiting.stored is InboxStatus.QUEUED and lane_of(waiting) == key]
        for waiting in behind:
            self.remove(waiting)
        if self.held is None:
            self.held = {}
        self.held.setdefault(key, deque()).extend((item, *behind))

    def release(self, item: Item) -> None:
        """`item`, and what waited behind it, may be taken again, in order; only `item` itself if others wait before it."""
        key, held = next(((key, held) for key, held in (self.held or {}).items() if item in held), (None, None))
        if key is None or held is None:
            return  # not held
        released = list(held) if held[0] is item else [item]
        for waiting in released:
            held.remove(waiting)
        if not held:
            self._drop_hold(key)
        # Before what was let past them.
        self._spread()
        lane = self._lane(key)
        for waiting in reversed(released):
            waiting.lane = lane
            lane.items.appendleft(waiting)
            self._count(waiting)
            lane.asks += waiting.counted

    def _drop_hold(self, key: LaneKey) -> None:
        if self.held is not None:
            del self.held[key]
            if not self.held:
                self.held = None
