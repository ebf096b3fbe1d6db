"""Verbs that say how a deployment and its machine are."""

from pathlib import Path

import msgspec

from ops import event_loop
from ops.commands.common import DEFAULTS, Common
from ops.exits import Exit
from ops.output import print_record, print_rows, progress
from ops.settings import Settings


def status(*, common: Common = DEFAULTS) -> int:
    """Show what runs on the deployment's folder.

    Exits 0 if it is ready, 1 if it is not yet, 3 if nothing runs, 5 if its
    server does not answer. nats_url holds the password: it is not for logs.
    """
    from ops.status import Status, as_row, collect

    settings = common.load().settings

    async def main() -> tuple[Status, Exit, list[str]]:
        found, code = await collect(settings)
        return found, code, [] if found.ready or code is Exit.NOT_FOUND else await lacking(settings)

    found, code, lines = event_loop.run(main())
    print_record(as_row(found), json=common.json)
    if code is Exit.NOT_FOUND:
        progress(f"nothing runs on {found.data}")
    for line in lines:
        progress(line)
    return int(code)


async def lacking(settings: Settings) -> list[str]:
    """Why workers that run do not take every shard (S7); looked up only where something is not ready, since it loads the app."""
    from events.sqlite.reader_sqlite import SqliteLogReader
    from ops.commands.access import registry_of
    from ops.doctor import lacking_code

    folder = Path(settings.data) / "log"
    if not (folder / "log.json").is_file():
        return []
    reader = await SqliteLogReader.open(folder)
    try:
        return [f"{each.check}: {each.found}; {each.remedy}" async for each in lacking_code(reader, registry_of(settings, None))]
    finally:
        await reader.close()


def doctor(*, common: Common = DEFAULTS) -> int:
    """Check what a deployment needs from this machine; exits 1 and says what to do if something is wrong.

    Each problem comes with its remedy, and at the end what would gain most.
    """
    from ops.doctor import examine
    from ops.finding import Finding

    loaded = common.load()

    async def main() -> list[Finding]:
        return [finding async for finding in examine(loaded)]

    findings = event_loop.run(main())
    print_rows([msgspec.structs.asdict(one) for one in findings], json=common.json)
    problems = [one for one in findings if not one.ok]
    for one in problems:
        progress(f"{one.check}: {one.remedy}")
    if (most := max(findings, key=lambda one: one.gain or 0.0, default=None)) is not None and most.gain is not None:
        progress(f"would gain most, up to {most.gain:.1f} times: {most.check}: {most.remedy}")
    return int(Exit.FAILURE if problems else Exit.OK)
