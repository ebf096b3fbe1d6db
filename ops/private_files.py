"""Files that only their owner may read, replaced as a whole. For credentials, server configuration and up.json."""

import os
import secrets
from pathlib import Path


def make_private_folder(path: Path) -> Path:
    """Create `path` and its missing parents with mode 0700; existing folders keep theirs."""
    # mkdir(parents=True) would give the parents the default mode.
    for folder in (*reversed(path.parents), path):
        folder.mkdir(mode=0o700, exist_ok=True)
    return path


def write_private(path: Path, text: str) -> None:
    """Replace `path` by a file with mode 0600: a reader sees the old or the new content, even after a crash.

    The mode is set at creation, so there is no moment at which others could open it.
    """
    make_private_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
