"""Options that every verb has. Verb modules import this; the table of verbs does not."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ops.output import progress
from ops.settings import LoadedSettings, load_settings


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Common:
    """Taken by a verb as its last parameter: `common: Common = Common()`."""

    data: Annotated[Path | None, Parameter(help="The deployment's folder (default: the user's data folder).")] = None
    config: Annotated[Path | None, Parameter(help="A settings file to read instead of ./cuebook.toml.")] = None
    json: Annotated[bool, Parameter(help="JSON Lines, also on a terminal.")] = False
    debug: Annotated[bool, Parameter(help="Show the traceback of an unexpected error.")] = False

    def load(self, **overrides: object) -> LoadedSettings:
        """Return the settings, with the verb's own options as the strongest; None as a value means not given."""
        loaded = load_settings({"data": self.data, **overrides}, config=self.config)
        for variable in loaded.unknown_variables:
            progress(f"note: {variable} names no setting")
        return loaded


DEFAULTS = Common()
