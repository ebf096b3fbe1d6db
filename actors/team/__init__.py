"""The built-in review team: agents that examine a Python code base with real tools, on the public actor API and nothing else.

All agents of one workspace carry its id, `workspace_id(root)`. `Orchestrator.review` is the way in.
"""

from actors.team.architect import Architect
from actors.team.docs import Docs
from actors.team.orchestrator import Orchestrator, ReviewSummary
from actors.team.performance import Performance
from actors.team.research import Research
from actors.team.reviewer import Reviewer
from actors.workspace_id import workspace_id

TEAM = (Orchestrator, Research, Architect, Performance, Reviewer, Docs)
"""Actor classes for ``App(actors=TEAM)``."""

__all__ = ["TEAM", "Architect", "Docs", "Orchestrator", "Performance", "Research", "ReviewSummary", "Reviewer", "workspace_id"]
