"""Verbs that end a stream: `archive` keeps what it said, `erase` does not (S24, S29). Both work on a running deployment and without one."""

import getpass
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter

from ops import event_loop
from ops.commands.access import is_up, log_folder, open_client, open_log
from ops.commands.common import DEFAULTS, Common
from ops.commands.keep import nothing_runs
from ops.exits import CommandError, Exit
from ops.output import print_rows, progress
from ops.settings import Settings

if TYPE_CHECKING:
    from events.ids import StreamId

_ASK_S = 600.0


def archive(stream: str, /, *, common: Common = DEFAULTS) -> int:
    """Close a stream for good: it stays readable, and no command changes it any more.

    Its highest version stays, so its id never starts anew; a repeat of a
    remembered command still gets its reply. Works on a running deployment too.
    """
    from events.errors import StreamBusyError, StreamClosedError, UnknownStreamError
    from events.keeping.archive import archive as archive_stream

    settings = common.load().settings
    name, shard = _named(settings, stream)
    try:
        if is_up(settings):
            done = event_loop.run(_asked(settings, name, "_archive", {}))
        else:
            with nothing_runs(Path(settings.data), [shard]):
                done = _plain(archive_stream(log_folder(settings), name))
    except UnknownStreamError as error:
        raise CommandError(error.message, next_step="cuebook streams", code=Exit.NOT_FOUND) from error
    except StreamClosedError as error:
        raise CommandError(error.message, code=Exit.CONFLICT) from error
    except StreamBusyError as error:
        raise CommandError(error.message, why="let it finish, or cancel it, first", code=Exit.CONFLICT) from error
    print_rows([done], json=common.json)
    return int(Exit.OK)


def erase(
    stream: str,
    /,
    *,
    yes: Annotated[bool, Parameter(help="Do not ask for the name of the stream again.", negative="")] = False,
    common: Common = DEFAULTS,
) -> int:
    """Remove what a stream said, for good: a sealed one by destroying its key, another by removing its payloads.

    The chain of hashes still verifies. Backups and exports that were made
    before keep what they hold: of a sealed stream that cannot be opened any
    more, of another one it can. Works on a running deployment too: it then
    waits up to 30 s until the views have forgotten it, and names those that
    have not.
    """
    from events.errors import UnknownStreamError
    from events.sealed.erasure import erase as erase_stream
    from ops.view_erasure import drop_unattended, forget_cached
    from ops.views import CACHE
    from runtime.sealed import open_sealer

    settings = common.load().settings
    name, shard = _named(settings, stream)
    folder = log_folder(settings)
    forks = event_loop.run(_forks(settings, name))
    if forks:
        progress(f"note: {', '.join(forks)} branched off {name} and keep the state that they began with; erase them too if they must go")
    _confirm(name, yes)
    by = getpass.getuser()
    try:
        if is_up(settings):
            done = event_loop.run(_asked(settings, name, "_erase", {"confirm": name, "by": by}))
        else:
            sealer = open_sealer(settings.keys_folder, folder, None)
            with nothing_runs(Path(settings.data), [shard]):
                done = _plain(event_loop.run(erase_stream(folder, name, by, sealer)))
    except UnknownStreamError as error:
        raise CommandError(error.message, next_step="cuebook streams", code=Exit.NOT_FOUND) from error
    for view in drop_unattended(Path(settings.data)):
        progress(f"the view {view} was removed, as no projector runs that could forget {name} in it; it is built anew at the next start")
    views = event_loop.run(_left_in_views(settings, shard)) if is_up(settings) else []
    if not event_loop.run(forget_cached(settings, name)):
        views = sorted({*views, CACHE})
        progress(f"the cache's server does not answer: what it holds of {name} is there until its time is over, or a projector runs again")
    for view in views:
        progress(f"the view {view} has not forgotten {name} yet, and does as soon as it can: cuebook projections ls")
    lines = scrub_lines(Path(settings.data) / "logs", name)
    print_rows([{**done, "forks": forks, "views_left": views, "log_lines": lines}], json=common.json)
    if done["key_ids"]:
        progress("its keys are destroyed: no backup or export of it can be opened any more")
    else:
        progress("backups, exports and copies that were made before still hold what it said: remove them too where it must be gone")
        for old in sorted(folder.glob("replaced-*")):
            progress(f"note: {old} is such a copy, left by a restore")
    return int(Exit.OK)


def scrub_lines(folder: Path, stream: "StreamId") -> int:
    """Blank every line of the log files in `folder` that names `stream`; returns how many. In place and of the same length, so that a
    process that goes on writing to the file loses nothing."""
    wanted = f'"{stream}"'.encode()
    found = 0
    for path in sorted(folder.glob("*.log*")) if folder.is_dir() else ():
        with path.open("r+b") as file:
            start = 0
            for line in file.readlines():
                if wanted in line:
                    file.seek(start)
                    file.write(b" " * (len(line) - 1) + b"\n" if line.endswith(b"\n") else b" " * len(line))
                    found += 1
                start += len(line)
    return found


def _confirm(name: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise CommandError(f"{name} was not erased", why="nobody could be asked", next_step="add --yes", code=Exit.USAGE)
    print(f"This cannot be undone. Type {name} to erase it: ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip() != name:
        raise CommandError(f"{name} was not erased", why="another name was typed", code=Exit.FAILURE)


def _named(settings: Settings, stream: str) -> "tuple[StreamId, int]":
    from events.ids import StreamId, parse_stream_id, shard_of
    from events.log_directory import read_identity

    folder = log_folder(settings)
    try:
        return StreamId(stream), shard_of(*parse_stream_id(StreamId(stream)), read_identity(folder).shards)
    except ValueError as error:
        raise CommandError(f"{stream} is no stream", why=str(error), next_step="cuebook streams", code=Exit.USAGE) from error


async def _asked(settings: Settings, stream: "StreamId", method: str, arguments: dict[str, Any]) -> dict[str, Any]:
    async with open_client(settings) as cue:
        done: dict[str, Any] = msgspec.json.decode(await cue.ask(stream, method, arguments, _ASK_S, None))
        return done


async def _left_in_views(settings: Settings, shard: int) -> list[str]:
    """Wait until the views of the running deployment have come to the erasure; those that have not, by name."""
    from ops.view_erasure import WAIT_S, wait_forgotten

    async with open_log(settings) as reader, open_client(settings) as cue:
        position = (await reader.info(shard)).position
        progress(f"waiting up to {WAIT_S:.0f} s until the views have forgotten it")
        return await wait_forgotten(Path(settings.data), shard, position, cue.ask_view)


async def _forks(settings: Settings, stream: "StreamId") -> list[str]:
    """The forks of `stream`, and theirs, that still hold what they began with (S33)."""
    from runtime.branches.forks_of import forks_of

    async with open_log(settings) as reader:
        return [found.stream async for found in forks_of(reader, stream) if found.status != "erased"]


def _plain(closed: Any) -> dict[str, Any]:
    return {name: value for name, value in msgspec.structs.asdict(closed).items() if name != "events"}
