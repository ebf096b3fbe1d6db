"""Makes actors live: mailboxes, turns, ownership, transport, the client. Knows no concrete agent.

Here is what lives: node, shard, cell, client. Rooms: `ownership` (who has which shard), `turns` (from its first line to its outcome),
`over_nats` (everything that travels), `branches` (forks), `past` (what the log says afterwards).
"""

from typing import TYPE_CHECKING, Any

from runtime.app import App

if TYPE_CHECKING:
    from runtime.client import connect

__all__ = ["App", "connect"]


def __getattr__(name: str) -> Any:
    """`connect` is imported when it is first used: an app that is only loaded needs no client."""
    if name == "connect":
        from runtime.client import connect

        return connect
    raise AttributeError(f"module 'runtime' has no attribute {name!r}")
