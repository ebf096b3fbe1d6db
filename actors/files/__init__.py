"""Files, checkpoints and programs of a workspace, under capabilities.

`Files` is the actor; `rules` decides, `disk` and `steps` do, `checkpoints` keeps whole states in a git repository
of its own, `commands` runs programs.
"""

from actors.files.names import Refusal
from actors.files.rules import DEFAULT_RULES, CommandTool, Grant, Rules
from actors.files.workspace_files import Files, files_with

__all__ = ["DEFAULT_RULES", "CommandTool", "Files", "Grant", "Refusal", "Rules", "files_with"]
