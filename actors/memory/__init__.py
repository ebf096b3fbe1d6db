"""The memory of a workspace: what is remembered, learned and known to hold, as events of one actor with the workspace's id.

`memory_actor(embedder)` makes the class for ``App(actors=[...])``; every deployment has one anyway, as type ``memory``.
"""

from actors.memory.actor import Consolidated, Difference, Memory, Note, Renewed, Standing, memory_actor
from actors.memory.facts import Known, MemoryType

__all__ = ["Consolidated", "Difference", "Known", "Memory", "MemoryType", "Note", "Renewed", "Standing", "memory_actor"]
