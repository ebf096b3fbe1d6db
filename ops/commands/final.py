"""Reading the merged order of a deployment that may be running: its final part only, unless told otherwise (S30)."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from ops.output import progress
from ops.settings import Settings

if TYPE_CHECKING:
    from events.selection import Selection
    from events.store import LogReader
    from runtime.past.watermark import Cut

Provisional = Annotated[bool, Parameter(negative="", help="Also what is not final: the order of the last events may yet change.")]


async def final_part(settings: Settings, reader: "LogReader", *, provisional: bool) -> "Cut | None":
    """Where to stop; None = nowhere. Waits up to 2 s until all that was recorded before the call is final."""
    from runtime.past.reader_remote import RemoteLogReader
    from runtime.past.watermark import cut, watermark_of

    if provisional:
        return None
    if isinstance(reader, RemoteLogReader):
        return await cut(reader, reader.watermark)
    return await cut(reader, lambda: watermark_of(Path(settings.data), reader))


async def note_withheld(reader: "LogReader", found: "Cut | None", wanted: "Selection") -> None:
    """Say on stderr what was left out, if a shard holds the watermark back."""
    from runtime.past.watermark import COUNTED_MAX, withheld

    if found is None or not found.held:
        return
    count = await withheld(reader, wanted, found.positions)
    if count:
        held = f"shard {found.watermark.shard} ({found.watermark.why}) may yet record earlier ones"
        many = f"{count:,} or more" if count == COUNTED_MAX else f"{count:,}"
        progress(f"{many} later {'event is' if count == 1 else 'events are'} left out: {held}. To see all at once: --provisional")
