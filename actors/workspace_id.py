"""The id that all agents of one workspace carry, and the folder that is ours in it."""

import hashlib
import re
from pathlib import Path
from typing import Final

OWN_FOLDER: Final = ".cuebook"
"""What Cuebook keeps in a workspace, at its top."""


def workspace_id(root: Path) -> str:
    """The name of the folder as a token, then 8 hex digits of its place: `rich-1a2b3c4d`. `root` is resolved already."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", root.name).strip("-")[:48] or "root"
    return f"{name}-{hashlib.sha256(str(root).encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"
