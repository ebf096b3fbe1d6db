"""Agents declared in agents.toml, alone and in runs: `cuebook up --app ops.examples.declared:app`, then
`cuebook ask guide/WORKSPACE do '{"task": "What is this?", "root": "/path"}'`, or a run that the guide plans and the scribe writes for:
`cuebook ask task/t1 start '{"session": "me", "goal": "Document main.py", "planner": "guide", "root": "/path"}'`."""

from pathlib import Path

from actors.agents import agents_from, rules_for
from actors.files import files_with
from actors.tasks import TASKS
from ops.memory import with_memory
from ops.models import with_providers
from runtime import App

AGENTS = agents_from(Path(__file__).with_name("agents.toml"))
app = with_providers(with_memory(App(actors=[*AGENTS, *TASKS, files_with(rules_for(AGENTS))])))
