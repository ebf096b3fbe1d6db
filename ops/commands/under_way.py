"""`ps`: what is under way. Works on the files, with no server running."""

from typing import TYPE_CHECKING

import msgspec

from ops import event_loop
from ops.commands.access import open_log
from ops.commands.common import DEFAULTS, Common
from ops.output import print_json, print_rows, progress, wants_json

if TYPE_CHECKING:
    from runtime.turns.under_way import Listing


def ps(*, common: Common = DEFAULTS) -> None:
    """Show what is under way, and what waits for whom.

    Commands that are queued or running and the steps and asks they wait for, sends that no receiver has taken yet, open waits, timers.
    Example: cuebook ps
    """
    from runtime.turns.under_way import under_way
    from runtime.wire import iso_time

    settings = common.load().settings

    async def main() -> "Listing":
        async with open_log(settings) as reader:
            return await under_way(reader)

    found = event_loop.run(main())
    for damage in found.damages:
        progress(f"note: {damage}")
    if wants_json(common.json):
        for each in found.open:
            print_json(each)
        return
    rows = [
        {
            **{name: value for name, value in msgspec.structs.asdict(each).items() if name in ("actor", "what", "waits_for", "method")},
            "since": None if each.since_us is None else iso_time(each.since_us),
            "until": None if each.due_us is None else iso_time(each.due_us),
            "command_id": each.command_id,
        }
        for each in found.open
    ]
    print_rows(rows, json=False)
    if not rows:
        progress("nothing is under way")
