"""Streams that are not what was written (I-20): each is put aside by name, beside the log and not in it, and the others go on.

One small file per stream in ``quarantine/``, so that a damaged shard file need not be written to say that it is damaged, that the owner of
a shard, `verify` and a person can each add or remove one without a lock, and that it still holds after a restart. A restore removes them.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from events.errors import CorruptLogError
from events.ids import StreamId, parse_stream_id

FOLDER: Final = "quarantine"


class QuarantinedError(CorruptLogError):
    """The stream is damaged and put aside until a person lifts that. Fields: stream, shard, position, version."""

    code = "quarantined"


class Quarantined(msgspec.Struct, frozen=True, kw_only=True):
    """Which stream, where its damage was met, what it is, and when it was noticed (wall clock)."""

    stream: StreamId
    shard: int
    position: int | None
    version: int | None
    reason: str
    noticed_at_us: int

    def error(self) -> QuarantinedError:
        """What whoever asks for the stream is told."""
        where = f"{self.shard}:{self.position}" if self.position is not None else f"shard {self.shard}"
        return QuarantinedError(
            f"{self.stream} is in quarantine: {self.reason} ({where}). Restore a backup, or end the stream (cuebook erase {self.stream}); "
            f"if it was mended: cuebook quarantine lift {self.stream}",
            stream=self.stream, shard=self.shard, position=self.position, version=self.version,
        )  # fmt: skip


class Quarantine:
    """The streams of one log that are put aside. Every call is one or two system calls; blocks that long."""

    def __init__(self, directory: Path) -> None:
        self._folder = directory / FOLDER

    def _path(self, stream: str) -> Path:
        type_name, key = parse_stream_id(StreamId(stream))  # tokens: no part of a path
        return self._folder / f"{type_name}.{key}.json"

    def find(self, stream: str) -> Quarantined | None:
        """The entry of `stream`, None if it is not put aside. One whose file cannot be read is, for no known reason."""
        try:
            return self._read(self._path(stream))
        except FileNotFoundError:
            return None

    def _read(self, path: Path) -> Quarantined:
        body = path.read_bytes()
        try:
            return msgspec.json.decode(body, type=Quarantined)
        except msgspec.DecodeError:
            stream = StreamId(path.name.removesuffix(".json").replace(".", "/", 1))
            return Quarantined(stream=stream, shard=0, position=None, version=None, reason="its entry cannot be read", noticed_at_us=0)

    def put(self, found: Quarantined) -> None:
        """Put a stream aside; the first reason stays. A disk that cannot take the entry is no reason to fail: the damage is met again."""
        path = self._path(found.stream)
        temporary = path.with_suffix(f".{os.getpid()}.new")
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            temporary.write_bytes(msgspec.json.encode(found) + b"\n")
            os.link(temporary, path)
        except OSError:
            pass
        finally:
            temporary.unlink(missing_ok=True)

    def lift(self, stream: str) -> bool:
        """Let a stream work again; False if it was not put aside. What is still damaged is put aside again when it is met."""
        try:
            self._path(stream).unlink()
        except FileNotFoundError:
            return False
        return True

    def all(self) -> Iterator[Quarantined]:
        """Every stream that is put aside, by name."""
        for path in sorted(self._folder.glob("*.json")) if self._folder.is_dir() else ():
            try:
                yield self._read(path)
            except FileNotFoundError:
                continue  # lifted meanwhile

    def clear(self) -> None:
        """The files that the entries were about are gone."""
        for found in list(self.all()):
            self.lift(found.stream)


def quarantined(error: CorruptLogError, stream: StreamId, shard: int, now_us: int) -> Quarantined:
    """`error`, met while `stream` was read, as its entry."""
    position, version = error.fields.get("position"), error.fields.get("version")
    return Quarantined(
        stream=stream, shard=shard, position=position if isinstance(position, int) else None,
        version=version if isinstance(version, int) else None, reason=error.message, noticed_at_us=now_us,
    )  # fmt: skip
