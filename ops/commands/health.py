"""Verbs that say how a deployment and its machine are."""

from ops import event_loop
from ops.commands.common import DEFAULTS, Common
from ops.exits import Exit
from ops.output import print_record, print_rows, progress


def status(*, common: Common = DEFAULTS) -> int:
    """Show what runs on the deployment's folder.

    Exits 0 if it is ready, 1 if it is not yet, 3 if nothing runs, 5 if its
    server does not answer. nats_url holds the password: it is not for logs.
    """
    from ops.status import as_row, collect

    found, code = event_loop.run(collect(common.load().settings))
    print_record(as_row(found), json=common.json)
    if code is Exit.NOT_FOUND:
        progress(f"nothing runs on {found.data}")
    return int(code)


def doctor(*, common: Common = DEFAULTS) -> int:
    """Check what a deployment needs from this machine; exits 1 and says what to do if something is wrong."""
    from ops.doctor import Finding, examine

    loaded = common.load()

    async def main() -> list[Finding]:
        return [finding async for finding in examine(loaded)]

    findings = event_loop.run(main())
    rows: list[dict[str, object]] = [{"check": one.check, "ok": one.ok, "found": one.found, "remedy": one.remedy} for one in findings]
    print_rows(rows, json=common.json)
    problems = [one for one in findings if not one.ok]
    for one in problems:
        progress(f"{one.check}: {one.remedy}")
    return int(Exit.FAILURE if problems else Exit.OK)
