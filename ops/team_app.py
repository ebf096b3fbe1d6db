"""The app of the built-in review team: `cuebook up --app ops.team_app:app`; `cuebook review` runs on it."""

from actors.team import TEAM
from runtime import App

app = App(actors=TEAM)
