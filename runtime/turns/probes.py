"""Turns that wait for each other's asks: found by probes that run along the asks, and ended by refusing the youngest (S23).

Two independent turns, A -> B and B -> A, have no cycle in either chain, yet wait for ever: each ask stands in the mailbox behind the
other's turn. An actor whose turn waits for an ask, while an ask of another actor stands behind it, sends a probe along that ask (edge
chasing: Chandy, Misra, Haas, "Distributed Deadlock Detection", ACM TOCS 1983). The receiver passes it on along the asks that its own turn
waits for. A probe that comes to an ask which it has run along already has found a cycle. The youngest ask of a cycle always stands in a
mailbox: one that runs has a younger one of its own turn behind it. So it can be refused as certainly not done, for good: another sending of
it may still be on its way.

A probe is a hint that may be lost; it is sent again as long as somebody is blocked, and nothing is sent while nobody is.
"""

import asyncio
from typing import TYPE_CHECKING, Final

from actors.errors import CallCycle
from actors.message import Command
from actors.registry import Method
from events.ids import StreamId
from events.limits import CALL_CHAIN_MAX
from runtime.items import Item
from runtime.turns.doubt import fail_unless_done
from runtime.turns.edges import Probe
from runtime.turns.unappendable import fail_for_good

if TYPE_CHECKING:
    from runtime.cell import Cell
    from runtime.shard import Shard

_AFTER_S: Final = 0.01
"""Most asks that queue are answered before: no probe for them."""
_AGAIN_S: Final = 1.0
_EDGES_MAX: Final = 64


class Probes:
    """The probes of one shard."""

    def __init__(self, shard: "Shard") -> None:
        self._shard = shard
        self._blocked: set[StreamId] = set()
        self._handle: asyncio.TimerHandle | None = None

    def blocked(self, cell: "Cell") -> None:
        """An ask stands behind a turn that waits for an ask, as far as can be seen."""
        if cell.stream not in self._blocked:
            self._blocked.add(cell.stream)
            self._arm(_AFTER_S)

    def stop(self) -> None:
        self._blocked.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self, delay_s: float) -> None:
        loop = asyncio.get_running_loop()
        if self._handle is not None:
            if self._handle.when() <= loop.time() + delay_s:
                return
            self._handle.cancel()
        self._handle = loop.call_later(delay_s, self._send)

    def _send(self) -> None:
        self._handle = None
        for stream in list(self._blocked):
            cell = self._shard.cells.get(stream)
            edges = [] if cell is None or cell.driver is None else list(cell.driver.asks.values())
            if cell is None or not edges or not any(_is_ask(item) for item in cell.mailbox):
                self._blocked.discard(stream)
                continue
            for edge in edges:
                self._shard.exchange.probe(Probe((edge,)))
        if self._blocked:
            self._arm(_AGAIN_S)

    def receive(self, probe: Probe) -> None:
        """A probe for an actor of this shard: pass it on, or end the cycle that it has found."""
        cell = self._shard.cells.get(probe.receiver)
        if cell is None:
            return
        if probe.victim is not None:
            self._refuse(cell, probe)
            return
        arrived = probe.edges[-1].command_id
        if cell.driver is None or cell.item is None or cell.under_way(arrived) is None:
            return  # answered meanwhile, or not here yet: then its turn goes on
        for edge in list(cell.driver.asks.values()):
            known = [seen.command_id for seen in probe.edges]
            if edge.command_id in known:
                cycle = probe.edges[known.index(edge.command_id) :]
                victim = max(cycle, key=lambda each: (each.time, each.command_id))
                self._shard.exchange.probe(Probe(cycle, victim))
            elif len(probe.edges) < _EDGES_MAX:
                self._shard.exchange.probe(Probe((*probe.edges, edge)))

    def _refuse(self, cell: "Cell", probe: Probe) -> None:
        victim = probe.victim
        if victim is None:
            return
        item = next((item for item in cell.mailbox if item.command.command_id == victim.command_id and _is_ask(item)), None)
        if item is None:
            return  # it runs or is answered: no cycle any more
        cell.mailbox.remove(item)
        at = probe.edges.index(victim)
        path = [edge.sender for edge in (*probe.edges[at:], *probe.edges[:at])]
        path.append(victim.sender)
        refusal = CallCycle(f"{' -> '.join(path)} would wait for each other", path=path)
        end = fail_for_good if item.command.explicit else fail_unless_done
        self._shard.spawn(end(cell, item, refusal), name=f"cycle {cell.stream}")


def _is_ask(item: Item) -> bool:
    """Whether another actor's turn waits for it."""
    return item.stored is None and item.command.sender is not None

def check_chain(command: Command, method: Method) -> None:
    """The cycles that a chain alone shows (S23). Raises: CallCycle."""
    # A query is answered beside the turn that holds its actor, so it waits for nobody.
    if command.stream in command.chain and not method.query:
        path = [*command.chain[command.chain.index(command.stream) :], command.stream]
        raise CallCycle(f"{' -> '.join(path)} would wait for itself", path=path)
    if len(command.chain) > CALL_CHAIN_MAX:
        raise CallCycle(f"more than {CALL_CHAIN_MAX} actors wait for each other", path=list(command.chain))
