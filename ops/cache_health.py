"""How the cache of a deployment does, from one look at its server: for `cache stats`, `status` and `doctor`."""

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from events.log_directory import read_identity
from ops.cache_connection import CachePlace, cache_place
from ops.exits import CommandError, Exit
from ops.finding import Finding
from ops.settings import Settings
from ops.up_state import read_up
from projections.cache.tally import Tally, tallies
from projections.cache.values import Values
from projections.locking import lock_holder

if TYPE_CHECKING:
    from projections.cache.look_redis import ServerFacts

RATE_WARNING, RATE_CRITICAL = 0.7, 0.5
"""Hits of all lookups below which it is said (facts/predecessor.md 2.11), once there were enough of them to judge by."""
LOOKUPS_MIN = 1_000


class CacheReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `cache stats` shows. mode: where it is, or why there is none. entries: results that the server holds for this log."""

    mode: str
    version: str | None = None
    entries: int | None = None
    used_bytes: int | None = None
    limit_bytes: int | None = None
    evicted: int | None = None
    namespaces: list[Tally] = []


async def report(settings: Settings) -> CacheReport:
    """What the server of a deployment holds and what was counted on the way. A server that is away is a report too."""
    place = cache_place(settings)
    found = await _facts(settings, place)
    if found is None:
        return CacheReport(mode=place.shown)
    if isinstance(found, str):
        return CacheReport(mode=f"off: {found}")
    counts = [] if found.checkpoint is None else tallies(found.checkpoint.counts)
    return CacheReport(
        mode=place.shown, version=found.version, entries=found.entries, used_bytes=found.used_bytes, limit_bytes=found.limit_bytes,
        evicted=found.evicted, namespaces=counts,
    )  # fmt: skip


async def mode(settings: Settings) -> str:
    """One line for `status`: where the cache is and what serves it, or that it is off and why."""
    found = await report(settings)
    return found.mode if found.version is None else f"{found.version}, {found.mode}, {found.entries:,} results"


async def clear(settings: Settings) -> int:
    """Remove every result of this deployment's log from the server; how many there were. A projector fills it again from the log.

    Raises:
        CommandError: there is no server, or it does not answer.
    """
    from ops.cache import cache_view
    from projections.errors import ViewUnavailableError

    view = cache_view(settings)
    if view is None:
        raise CommandError("there is no cache to clear", why=cache_place(settings).shown, code=Exit.NOT_FOUND)
    try:
        return await view.clear()
    except ViewUnavailableError as error:
        raise CommandError("the cache's server does not answer", why=error.message, code=Exit.CANNOT_CONNECT) from error
    finally:
        await view.close()


async def findings(settings: Settings) -> list[Finding]:
    """What `doctor` says of the cache. It is never needed, so only an outside server that does not answer is a failure: that was wanted."""
    from ops.views import CACHE, FOLDER

    place = cache_place(settings)
    found = await _facts(settings, place)
    if found is None:
        remedy = None if settings.cache == "off" else "results of steps are shared by no two processes, and lost with them"
        return [Finding(check="cache", ok=True, found=place.shown, remedy=remedy)]
    if isinstance(found, str):
        outside = not place.embedded
        remedy = "start it, or correct redis_url" if outside else "it runs while `cuebook up` does; costs time only"
        return [Finding(check="cache", ok=not outside, found=f"{place.shown}: {found}", remedy=remedy)]
    unkept = read_up(Path(settings.data)) is not None and lock_holder(Path(settings.data) / FOLDER / CACHE) is None
    remedy = "no projector fills it, which costs time only: cuebook projector; see logs/projector.log" if unkept else None
    answer = [Finding(check="cache", ok=True, found=f"{found.version}, {place.shown}, {found.entries:,} results", remedy=remedy)]
    if found.evicted and found.limit_bytes:
        answer.append(
            Finding(
                check="cache memory", ok=True, found=f"{found.evicted:,} results were pushed out at {found.limit_bytes / 1024**2:,.0f} MiB",
                remedy="more memory for the server, or shorter cache_ttl",
            )
        )  # fmt: skip
    for each in [] if found.checkpoint is None else tallies(found.checkpoint.counts):
        if each.hits + each.misses >= LOOKUPS_MIN and each.rate < RATE_WARNING:
            level = "critical" if each.rate < RATE_CRITICAL else "warning"
            answer.append(
                Finding(
                    check=f"cache hits of {each.namespace}", ok=True, found=f"{each.rate:.0%} of {each.hits + each.misses:,} ({level})",
                    remedy="its steps seldom see the same content in time: a longer cache_ttl, a cache_key of less, or no cache for them",
                )
            )  # fmt: skip
    return answer


async def _facts(settings: Settings, place: CachePlace) -> "ServerFacts | str | None":
    """What the server says; why it does not, as text; None if there is none, or no log yet."""
    log = Path(settings.data) / "log"
    if place.address is None or not (log / "log.json").is_file():
        return None
    from projections.cache.look_redis import look

    return await look(place.address, Values(read_identity(log).incarnation, place.seal))
