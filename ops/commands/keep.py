"""Verbs that look after the log itself."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import Parameter

from ops.commands.access import app_of, log_folder
from ops.commands.common import DEFAULTS, Common
from ops.commands.look import AppOption
from ops.exits import CommandError, Exit
from ops.output import print_rows, progress
from ops.up_state import read_up

if TYPE_CHECKING:
    from events.store import Damage


def verify(*, common: Common = DEFAULTS) -> int:
    """Check hashes, versions and checksums of the whole log; exits 4 and names what is damaged.

    Reads the files, also while a deployment runs. `replay --verify` compares
    folded states instead.
    """
    from events.keeping.verify import verify as verify_log
    from events.log_directory import read_identity

    settings = common.load().settings
    folder = log_folder(settings)
    damages = verify_log(folder, _tell if sys.stderr.isatty() else None)
    print_rows([_row(damage) for damage in damages], json=common.json)
    shards = read_identity(folder).shards
    _put_aside(folder, damages)
    if damages:
        progress(f"{len(damages)} findings in {shards} shards of {folder}; restore a backup of what is damaged")
        return int(Exit.VERIFICATION_FAILED)
    progress(f"{shards} shards of {folder}: every event, hash and checksum is as it was written")
    return int(Exit.OK)


def _put_aside(folder: Path, damages: "list[Damage]") -> None:
    """A stream with a damaged event or head is refused from now on, also by an owner that runs: it might answer from a snapshot (I-20)."""
    from events.clock import SystemClock
    from events.ids import StreamId
    from events.keeping.quarantine import Quarantine, Quarantined

    quarantine = Quarantine(folder)
    first: dict[str, Damage] = {}
    for damage in damages:
        if damage.stream is not None and damage.table in ("events", "streams"):
            first.setdefault(damage.stream, damage)
    for stream, damage in first.items():
        try:
            quarantine.put(
                Quarantined(
                    stream=StreamId(stream), shard=damage.shard, position=damage.position, version=damage.version,
                    reason=damage.message, noticed_at_us=SystemClock().wall_us(),
                )
            )  # fmt: skip
        except ValueError:
            continue  # damage to the name itself: no actor has it
        progress(f"{stream} is put aside: cuebook quarantine ls")


def _row(damage: "Damage") -> dict[str, object]:
    return msgspec.structs.asdict(damage)


def _tell(shard: int, position: int, end: int) -> None:
    # Called once per page of 1,000 events.
    if position % 100_000 < 1_000:
        progress(f"shard {shard}: {position:,} of {end:,}")


def backup(directory: Path, /, *, common: Common = DEFAULTS) -> int:
    """Copy the log into a new or empty folder, also while a deployment runs, and verify the copy.

    The folder is a data folder like any other: `cuebook log --data DIR` reads
    it. `cuebook restore DIR` puts it back.
    """
    from events.keeping.backup import back_up

    done = back_up(log_folder(common.load().settings), directory, progress)
    print_rows([msgspec.structs.asdict(shard) for shard in done.shards], json=common.json)
    progress(f"{directory}: {sum(shard.position for shard in done.shards):,} events of log {done.incarnation}, verified")
    if not done.exact:
        progress("note: the log was too busy for one instant of all shards; they lie less than a millisecond apart")
    return int(Exit.OK)


def export(
    file: Path,
    /,
    *,
    stream: Annotated[list[str] | None, Parameter(help="Only this stream; may be given several times.", negative="")] = None,
    correlation: Annotated[str | None, Parameter(help="Only this conversation, redacted: a log to send with a bug report.")] = None,
    redact: Annotated[list[str] | None, Parameter(help="With --correlation: take this text out wherever it stands.", negative="")] = None,
    app: AppOption = None,
    common: Common = DEFAULTS,
) -> int:
    """Write the log as JSON Lines with all hashes, also while a deployment runs; `import` reads it.

    Besides the events it holds what else decides an answer: stored replies,
    sends under way, timers and open waits. With --correlation it is a bug
    report: the streams that the conversation touched, up to its last event,
    without the values of fields that the app marks as Sensitive, of members
    named like a secret, of texts that look like keys, and of --redact.
    Example: cuebook export bug.jsonl --correlation 06a1f2 --redact "Jane Doe"
    Opened with: cuebook import bug.jsonl --data bug; cuebook log --data bug
    """
    from events.errors import UnknownStreamError
    from events.keeping.export import Conversation, UnknownConversationError
    from events.keeping.export import export as export_log
    from ops.bug_report import redactor_of

    settings = common.load().settings
    if redact and correlation is None:
        raise CommandError("--redact needs --correlation", why="a whole export is exact, so that it can be imported again", code=Exit.USAGE)
    conversation = None
    if correlation is not None:
        code = app_of(settings, app)
        if code is None:
            progress("note: without code no field is known as Sensitive; values are taken out by name, by look and by --redact only")
        conversation = Conversation(correlation_id=correlation, redactor=partial(redactor_of, code, redact or ()))
    try:
        done = export_log(log_folder(settings), file, stream or (), progress, conversation)
    except UnknownStreamError as error:
        raise CommandError(error.message, next_step="cuebook streams", code=Exit.NOT_FOUND) from error
    except UnknownConversationError as error:
        raise CommandError(error.message, next_step="cuebook log, or --json for the correlation ids", code=Exit.NOT_FOUND) from error
    if conversation is not None:
        progress(
            f"{done.redacted} places redacted; {done.events - done.others} events of the conversation and {done.others} before them in its "
            f"{done.streams} streams, without which no state can be folded. Look before you send it: cuebook import {file} --data DIR"
        )
    print_rows([{"file": str(file), **msgspec.structs.asdict(done)}], json=common.json)
    return int(Exit.OK)


def import_(
    file: Path,
    /,
    *,
    shards: Annotated[int | None, Parameter(help="Shards of the new log (default: as many as the exported one).")] = None,
    common: Common = DEFAULTS,
) -> int:
    """Make a new log from an export, in a data folder that has none; every hash is checked.

    With another number of shards each stream keeps its versions and hashes.
    """
    from events.keeping.export_import import import_log

    folder = Path(common.load().settings.data) / "log"
    done = import_log(file, folder, shards, progress)
    print_rows([{"data": str(folder.parent), **msgspec.structs.asdict(done)}], json=common.json)
    return int(Exit.OK)


def restore(directory: Path, /, *, common: Common = DEFAULTS) -> int:
    """Put a backup in the place of the log; the replaced files are kept beside it.

    Nothing may run on the data folder. If it is interrupted, the same command
    again completes it.
    """
    from events.keeping.restore import restore as restore_log
    from events.keeping.restore import shards_to_lock

    data = Path(common.load().settings.data)
    shards = shards_to_lock(directory, data / "log")
    (data / "log").mkdir(mode=0o700, parents=True, exist_ok=True)
    with nothing_runs(data, range(shards)):
        done = restore_log(directory, data / "log", progress)
    print_rows([msgspec.structs.asdict(done)], json=common.json)
    return int(Exit.OK)


@contextmanager
def nothing_runs(data: Path, shards: "range | list[int]") -> Iterator[None]:
    """Hold both locks of each shard, as an owner that works: a worker that starts meanwhile stands by.

    Raises:
        CommandError: CONFLICT, something runs on the folder.
    """
    import threading

    from runtime.ownership.heartbeat import BEAT_EVERY_S
    from runtime.ownership.lease import Lease, own_record
    from runtime.ownership.survey import main_path, survey, take_path

    running = survey(data, 0).workers
    if read_up(data) is not None or running:
        who = f"worker {min(running)}" if running else "cuebook up"
        raise CommandError(f"{who} runs on {data}", why="this needs the log alone", next_step="cuebook stop", code=Exit.CONFLICT)
    leases: list[Lease] = []
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT_EVERY_S):
            for lease in leases:
                try:
                    lease.beat()
                except OSError as error:
                    progress(f"note: {lease.path} cannot be written: {error.strerror}")

    beating = threading.Thread(target=beat, name="beat", daemon=True)
    try:
        for shard in shards:
            for path in (main_path(data, shard), take_path(data, shard)):
                lease = Lease.try_acquire(path, own_record("keep", "keep"))
                if lease is None:
                    raise CommandError(f"shard {shard} of {data} is in use", next_step="cuebook status", code=Exit.CONFLICT)
                leases.append(lease)
        beating.start()
        yield
    finally:
        ended.set()
        if beating.ident is not None:
            beating.join()
        for lease in leases:
            lease.release()
