"""Checks of the projections: parked streams, lag, damaged files, each with its remedy. Changes nothing."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ops.finding import Finding
from ops.settings import Settings
from ops.up_state import read_up

if TYPE_CHECKING:
    from events.store import LogReader
    from ops.view_files import Standing

LAG_S_MAX: Final = 5.0
"""A projector that is well looks at every shard file once per second."""
_LOOK_AGAIN_S: Final = 1.5
"""After an hour without events the first one finds a view that has applied nothing for an hour."""


async def views(
    settings: Settings, reader: "LogReader", pause: Callable[[float], Awaitable[object]] = asyncio.sleep
) -> AsyncIterator[Finding]:
    """Findings about every projection that has files. One that seems to lag is looked at once more after a `pause`."""
    from ops.view_files import standings

    data = Path(settings.data)
    is_up = read_up(data) is not None
    found = await standings(data, reader)
    if is_up and any(_is_behind(view) for view in found):
        await pause(_LOOK_AGAIN_S)
        found = await standings(data, reader)
    for view in found:
        check = f"projection {view.name}"
        if view.fault is not None:
            yield Finding(check=check, ok=False, found=view.fault, remedy=f"cuebook projections rebuild {view.name}")
            continue
        for parked in view.parked:
            yield Finding(
                check=check, ok=False,
                found=f"event {parked.shard}:{parked.position} ({parked.type or 'damaged'}) of {parked.stream or 'no stream'} is parked: "
                f"{parked.reason}; {parked.held} later ones wait behind it",
                remedy=f"mend the projection, then: cuebook projections release {view.name} {parked.stream}",
            )  # fmt: skip
        behind = is_up and _is_behind(view)
        if is_up and view.projector is None and not behind:
            yield Finding(check=check, ok=False, found="no process applies it", remedy="cuebook projector; see logs/projector.log")
        elif behind:
            yield Finding(
                check=check, ok=False, found=f"{view.lag:,} events behind, nothing applied for {view.idle_s:,.0f} s",
                remedy=f"see logs/projector.log; end process {view.projector}: up starts one" if view.projector else "cuebook projector",
            )  # fmt: skip
        elif view.version is None:
            remedy = "cuebook projections ls shows how far it is"
            yield Finding(check=check, ok=True, found="is built for the first time, and answers nothing yet", remedy=remedy)
        elif not view.parked:
            yield Finding(check=check, ok=True, found="level with the log" if not view.lag else f"{view.lag:,} events behind")


def _is_behind(view: "Standing") -> bool:
    return (view.lag or 0) > 0 and (view.idle_s or 0.0) > LAG_S_MAX
