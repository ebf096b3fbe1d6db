"""Bounds of a run."""

STEPS_MAX = 50
VERSIONS_MAX = 10
"""Versions of one proposal. After that it is decided as it stands, so that asking for changes cannot go on for ever."""

QUESTIONS_MAX = 20
"""Questions of the agents of one run. An agent that asks for ever gets nobody anywhere."""

TOGETHER_MAX = 8
"""Steps of one run that are under way at the same time."""

APPROVAL_S = 300.0
STEP_S = 300.0
RETRIES = 3
RETRY_FIRST_S = 5.0
"""Before the first retry; twice as long before each further one."""

SETTLE_S = 30.0
"""How long a rollback waits for agents whose work was cancelled to be at rest."""

WORKSPACE_S = 120.0
"""For one checkpoint, or for bringing one back."""

TEXT_MAX = 100_000
"""Characters of one text that a person or an agent hands in."""
