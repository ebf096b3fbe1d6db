"""What people say to agents at work: decisions, in their own words."""

from actors.people.decision import Decision, decision_of

__all__ = ["Decision", "decision_of"]
