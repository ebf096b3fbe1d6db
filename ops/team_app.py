"""The app of the built-in review team: `cuebook up --app ops.team_app:app`; `cuebook review` runs on it."""

from actors.team import TEAM
from ops.memory import with_memory
from runtime import App

app = with_memory(App(actors=TEAM))
