"""Verbs about the cache."""

import msgspec

from ops import event_loop
from ops.commands.common import DEFAULTS, Common
from ops.exits import Exit
from ops.output import print_record, print_rows, progress, wants_json


def stats(*, common: Common = DEFAULTS) -> int:
    """Show where the cache is, what it holds, and how many lookups were hits.

    Counted from the log, exactly: one hit or miss for every step that ended
    after a lookup. Exits 3 if there is no cache.
    """
    from ops.cache_health import report

    found = event_loop.run(report(common.load().settings))
    row = msgspec.to_builtins(found)
    namespaces = row.pop("namespaces")
    if wants_json(common.json):
        print_record({**row, "namespaces": namespaces}, json=True)
    else:
        print_record(row, json=False)
        print_rows(namespaces, json=False, columns=("namespace", "hits", "misses", "rate"))
    return int(Exit.OK if found.version is not None else Exit.NOT_FOUND)


def clear(*, common: Common = DEFAULTS) -> None:
    """Remove everything from the cache; a running deployment fills it again from the log.

    Costs time only. Nothing of other deployments on the same server is touched.
    """
    from ops.cache_health import clear as clear_cache

    progress(f"{event_loop.run(clear_cache(common.load().settings)):,} results removed")
