"""The app of the built-in review team, and of runs that people start: `cuebook up --app ops.team_app:app`; `cuebook review` runs on it."""

from actors.tasks import TASKS
from actors.team import TEAM
from ops.memory import with_memory
from ops.models import with_providers
from runtime import App

app = with_providers(with_memory(App(actors=(*TEAM, *TASKS))))
