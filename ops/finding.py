"""What `doctor` says of one thing."""

import msgspec


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One check. ok: False = a deployment will fail or be unsafe; notes are ok and may still have a remedy.

    gain: how many times as much work a deployment would do with the remedy, as far as that is known: measured with `cuebook bench`, or the
    number of cores that lie idle. An upper bound, to tell the large from the small.
    """

    check: str
    ok: bool
    found: str
    remedy: str | None = None
    gain: float | None = None
