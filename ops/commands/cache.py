"""Verbs about the cache."""

import msgspec

from ops import event_loop
from ops.commands.common import DEFAULTS, Common
from ops.exits import Exit
from ops.output import print_record, print_rows, progress, wants_json


def stats(*, common: Common = DEFAULTS) -> int:
    """Show where the cache is, what it holds, and how many lookups were hits.

    Counted from the log, exactly: one hit or miss for every step that ended
    after a lookup. Of a running deployment also what its processes found in
    themselves since their start: results of steps, and what they compute
    once (memos). Exits 3 if there is no cache.
    """
    from ops.cache_health import CacheReport, report
    from ops.in_process import InProcess, in_process

    settings = common.load().settings

    async def both() -> tuple[CacheReport, InProcess]:
        return await report(settings), await in_process(settings)

    found, inside = event_loop.run(both())
    row = msgspec.to_builtins(found)
    namespaces, (recent, memos) = row.pop("namespaces"), msgspec.to_builtins((inside.recent, inside.memos))
    if wants_json(common.json):
        print_record({**row, "namespaces": namespaces, "processes": inside.processes, "recent": recent, "memos": memos}, json=True)
    else:
        print_record(row, json=False)
        print_rows(namespaces, json=False, columns=("namespace", "hits", "misses", "rate"))
        if recent:
            print_rows(recent, json=False, title=f"in {inside.processes} processes, since their start")
        if memos:
            print_rows(memos, json=False, title="computed once")
    return int(Exit.OK if found.version is not None else Exit.NOT_FOUND)


def clear(*, common: Common = DEFAULTS) -> None:
    """Remove everything from the cache; a running deployment fills it again from the log.

    Costs time only. Nothing of other deployments on the same server is touched.
    """
    from ops.cache_health import clear as clear_cache

    progress(f"{event_loop.run(clear_cache(common.load().settings)):,} results removed")
