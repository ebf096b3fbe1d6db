"""Results too large for a message or an event, handed from agent to agent as files: the message carries path and digest.

An import graph or a list of all blocks of a large code base is megabytes, a reply is at most one. The log records which bytes were handed
over; the bytes themselves can be made again from the states of the agents. Parts lie beside the reports and are removed once these are
written. Only called inside steps.
"""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from actors.tools.errors import AnalysisError
from events.folder_sync import sync_folder

T = TypeVar("T")
PARTS: Final = ".parts"
"""Name of their folder inside the folder of the reports."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Where a part is and what it must be."""

    path: str
    sha256: str
    size_bytes: int


class PartLostError(AnalysisError):
    """A part is gone or is not what its writer left: run the review again."""

    code = "part_lost"


def write_part(folder: str, name: str, value: Any) -> Part:
    """Write `value` as JSON to ``folder/name.json``, whole or not at all."""
    content = msgspec.json.encode(value)
    place = Path(folder) / f"{name}.json"
    write_whole(place, content)
    return Part(path=str(place), sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))


def read_part(part: Part, type: type[T]) -> T:
    """Raises: PartLostError."""
    try:
        content = Path(part.path).read_bytes()
    except OSError as error:
        raise PartLostError(f"{part.path} cannot be read: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != part.sha256:
        raise PartLostError(f"{part.path} is not what its writer left")
    return msgspec.json.decode(content, type=type)


def write_whole(place: Path, content: bytes) -> None:
    """A reader sees the old file or the new one; after a power cut it is one of the two: temporary file, fsync, rename, fsync."""
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(place)
    sync_folder(place.parent)


def remove_parts(folder: str) -> None:
    """Remove the folder of parts; nothing happens if it is gone already."""
    if Path(folder).name == PARTS:
        shutil.rmtree(folder, ignore_errors=True)
