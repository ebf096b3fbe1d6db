"""Forks: what they take along, how they begin, what they may reach (S33)."""
