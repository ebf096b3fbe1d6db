"""Agents that are declared in a TOML file instead of written in Python: `declaration` reads it, `agent` is what each of them does, `tools`
are those that a file can name."""

from actors.agents.declaration import AgentFileError, agents_from, rules_for

__all__ = ["AgentFileError", "agents_from", "rules_for"]
