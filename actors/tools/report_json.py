"""report.json: the report as it is, for programs."""

from __future__ import annotations

import msgspec

from actors.tools.report import Report


def render_json(report: Report) -> str:
    """Indented JSON with a final newline; keys in the order of the Struct."""
    return msgspec.json.format(msgspec.json.encode(report), indent=1).decode() + "\n"


def read_json(text: str | bytes) -> Report:
    """The report in a report.json written by `render_json`.

    Raises:
        msgspec.DecodeError: the text is no such report.
    """
    return msgspec.json.decode(text, type=Report)
