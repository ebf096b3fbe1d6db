"""Agents declared in agents.toml: `cuebook up --app ops.examples.declared:app`, then
`cuebook ask guide/WORKSPACE work '{"task": "What is this?", "root": "/path"}'`. `RULES` are what `files/WORKSPACE open` is told once."""

from pathlib import Path

from actors.agents import agents_from, rules_for
from ops.memory import with_memory
from ops.models import with_providers
from runtime import App

AGENTS = agents_from(Path(__file__).with_name("agents.toml"))
RULES = rules_for(AGENTS)
app = with_providers(with_memory(App(actors=AGENTS)))
