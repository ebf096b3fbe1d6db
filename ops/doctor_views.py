"""Checks of the projections: parked streams, lag, damaged files, each with its remedy. Changes nothing."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ops.finding import Finding
from ops.settings import Settings
from ops.up_state import read_up

if TYPE_CHECKING:
    from events.store import LogReader

LAG_S_MAX: Final = 5.0
"""A projector that is well looks at every shard file once per second."""


async def views(settings: Settings, reader: "LogReader") -> AsyncIterator[Finding]:
    """Findings about every projection that has files."""
    from ops.view_files import standings

    data = Path(settings.data)
    is_up = read_up(data) is not None
    for view in await standings(data, reader):
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
        behind = is_up and (view.lag or 0) > 0 and (view.idle_s or 0.0) > LAG_S_MAX
        if is_up and view.projector is None and not behind:
            yield Finding(check=check, ok=False, found="no process applies it", remedy="cuebook projector; see logs/projector.log")
        elif behind:
            yield Finding(
                check=check, ok=False, found=f"{view.lag:,} events behind, nothing applied for {view.idle_s:,.0f} s",
                remedy=f"see logs/projector.log; end process {view.projector}: up starts one" if view.projector else "cuebook projector",
            )  # fmt: skip
        elif not view.parked:
            yield Finding(check=check, ok=True, found="level with the log" if not view.lag else f"{view.lag:,} events behind")
