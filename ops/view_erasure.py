"""What an erasure does to views (S29): a projector that runs forgets the stream as it comes to it; where none does, the view's files go."""

import shutil
from pathlib import Path

from ops.views import FOLDER
from projections.locking import lock_holder


def drop_unattended(data: Path) -> list[str]:
    """Remove the files of every view that no projector applies: nobody would take what was erased out of them before the next start, and a
    view is only ever a copy. They are built anew from the log then. Returns their names."""
    folder = data / FOLDER
    dropped: list[str] = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_dir() and lock_holder(path) is None:
            shutil.rmtree(path)
            dropped.append(path.name)
    return dropped
