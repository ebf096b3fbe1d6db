"""A conversation as one self-contained SVG: lifelines, messages, steps with their durations, failures. No script, nothing from elsewhere.

Time runs downwards in the order of the log; rows are as far apart as they must be to be read, and the left margin says when each was.
"""

from collections.abc import Mapping
from typing import Any, Final
from xml.sax.saxutils import escape

import msgspec

from runtime.past.sequence import Arrow, Note, Sequence, Work

_LEFT, _COLUMN, _ROW, _MARK, _TOP = 96, 210, 30, 6, 92
_CHARACTER: Final = 6.6
"""Width of one character of the small font, on the safe side."""
_DETAIL_CHARACTERS_MAX: Final = 1_500
PARTS_MAX: Final = 3_000
"""A picture of more is no picture; it says how many are missing."""
_STYLE: Final = """
svg{background:#fff;color:#1b1f24;font:12px ui-sans-serif,system-ui,sans-serif}
text{fill:#1b1f24}.dim{fill:#6a737d}.life{stroke:#c3c9d0;stroke-dasharray:3 4}.head{fill:#eef2f7;stroke:#9aa7b5}
.turn{fill:#dbe7f6;stroke:#5b83b8}.turn.bad,.work.bad{fill:#fbdcdc;stroke:#c62828}.turn.open,.work.open{stroke-dasharray:4 3}
.work{fill:#e9f5e6;stroke:#5d9a4e}.wait{fill:#fff3d6;stroke:#c08a1e}
.line{stroke:#31517a;stroke-width:1.4;fill:none}.tell{stroke-dasharray:none;stroke:#7a4fa0}.reply{stroke-dasharray:5 4;stroke:#6a737d}
.failure{stroke:#c62828;stroke-dasharray:5 4}.bad-text{fill:#c62828;font-weight:600}
@media(prefers-color-scheme:dark){svg{background:#14181d}text{fill:#e4e8ee}.dim{fill:#94a0ad}.head{fill:#222a33;stroke:#56636f}
.turn{fill:#20344f;stroke:#6b9bd8}.work{fill:#1f3a22;stroke:#6fb062}.wait{fill:#46391a;stroke:#d8a83c}
.turn.bad,.work.bad{fill:#4b1f1f;stroke:#ef6b6b}.line{stroke:#8fb4e0}.tell{stroke:#b894dd}.reply{stroke:#94a0ad}.failure{stroke:#ef6b6b}
.bad-text{fill:#ff8a8a}.life{stroke:#3b4550}}
"""


def picture(found: Sequence) -> str:
    """The SVG document, ending in a newline."""
    return _Picture(found).document()


class _Picture:
    def __init__(self, found: Sequence) -> None:
        self._found = found
        self._parts = found.parts[:PARTS_MAX]
        self._x: Mapping[str, int] = {name: _LEFT + _COLUMN // 2 + _COLUMN * index for index, name in enumerate(found.actors)}
        self._y: list[int] = []
        at = _TOP
        for part in self._parts:
            # The end of a step or turn needs a place and no line of its own.
            at += _MARK if isinstance(part, Note) and part.mark else _ROW
            self._y.append(at)
        self._bottom = at + _ROW
        self._out: list[str] = []
        self._busy: dict[str, list[int]] = {}

    def document(self) -> str:
        # A little room at the right for what is written beside the last lifeline.
        width, height = _LEFT + _COLUMN * max(1, len(self._x)) + 140, self._bottom + 26
        self._heads()
        for turn in self._found.turns:
            self._turn(turn)
        for index, part in enumerate(self._parts):
            match part:
                case Work():
                    self._work(index, part)
                case Arrow():
                    self._arrow(index, part)
                case Note() if not part.mark:
                    self._note(index, part)
        if len(self._found.parts) > PARTS_MAX:
            self._text(_LEFT, self._bottom + 12, f"… {len(self._found.parts) - PARTS_MAX:,} more: cuebook trace --messages", "dim")
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img">'
            f"<title>{_xml(self._found.correlation_id)}</title><style>{_STYLE}</style><defs>"
            '<marker id="full" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto-start-reverse">'
            '<path d="M0 0L10 5L0 10z" fill="context-stroke"/></marker>'
            '<marker id="thin" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="9" markerHeight="9" orient="auto-start-reverse">'
            '<path d="M0 0L10 5L0 10" fill="none" stroke="context-stroke" stroke-width="1.6"/></marker></defs>'
            + "\n".join(self._out)
            + "</svg>\n"
        )

    def _heads(self) -> None:
        parts = self._found.parts
        took = parts[-1].time - parts[0].time if parts else 0
        sent = sum(1 for part in parts if isinstance(part, Arrow) and part.says in ("ask", "tell"))
        steps = sum(1 for part in parts if isinstance(part, Work))
        failed = sum(1 for part in parts if isinstance(part, Arrow) and part.says == "failure") + sum(
            1 for part in parts if isinstance(part, Work) and part.failed
        )
        self._text(12, 22, self._found.correlation_id, "", size=15, bold=True)
        summary = f"{len(self._found.turns)} turns, {sent} messages, {steps} steps, {_ms(took)}"
        self._text(12, 40, summary + (f", {failed} failures" if failed else ""), "bad-text" if failed else "dim")
        for name, x in self._x.items():
            self._out.append(f'<line class="life" x1="{x}" y1="{_TOP - 12}" x2="{x}" y2="{self._bottom}"/>')
            self._out.append(f'<rect class="head" x="{x - 92}" y="{_TOP - 38}" width="184" height="26" rx="5"/>')
            self._text(x, _TOP - 21, _cut(name, 180), "", anchor="middle", bold=True, detail=name)

    def _turn(self, turn: Any) -> None:
        if turn.first >= len(self._y):
            return
        top, bottom = self._y[turn.first], self._y[min(turn.last, len(self._y) - 1)]
        kinds = "turn" + (" bad" if turn.error else "") + ("" if turn.ended else " open")
        detail = f"{turn.actor} {turn.method or ''} {turn.command_id}: {_ms(turn.duration_us)}" + (f", {turn.error}" if turn.error else "")
        if not turn.ended:
            detail += ", under way"
        self._box(kinds, self._x[turn.actor] - 5, top, 10, max(10, bottom - top), detail)

    def _work(self, index: int, work: Work) -> None:
        self._clock(index, work.time)
        ended = work.end is not None and work.end < len(self._y)
        top, bottom = self._y[index] - 8, (self._y[work.end] if work.end is not None and ended else self._bottom - _ROW // 2)
        # Steps that overlap in time stand beside each other.
        slots = self._busy.setdefault(work.actor, [])
        slot = next((number for number, free_at in enumerate(slots) if free_at <= top), len(slots))
        slots[slot : slot + 1] = [bottom]
        x = self._x[work.actor] + 8 + 12 * slot
        kind = "wait" if work.label.startswith("wait ") else "work"
        state = " bad" if work.failed else "" if ended else " open"
        said = f"{work.label}\ngiven: {_json(work.given)}\nreturned: {_json(work.result)}"
        said += f"\nfailed: {work.failed}" if work.failed else ""
        self._box(f"{kind}{state}", x, top, 9, max(14, bottom - top), f"{work.place} {said}")
        took = _ms(work.duration_us) if work.duration_us is not None else "open"
        text = f"{work.label} {took}" + (f" ✗ {work.failed}" if work.failed else "")
        self._text(x + 14, top + 12, _cut(text, _COLUMN - 40 - 12 * slot), "bad-text" if work.failed else "", detail=said, small=True)

    def _arrow(self, index: int, arrow: Arrow) -> None:
        self._clock(index, arrow.time)
        y, start, end = self._y[index], self._x[arrow.source], self._x[arrow.target]
        bad = arrow.says == "failure"
        kinds = {"ask": "line", "tell": "line tell", "reply": "line reply", "failure": "line failure"}[arrow.says]
        marker = "thin" if arrow.says in ("tell", "reply") else "full"
        detail = f"{arrow.place} {arrow.source} to {arrow.target}: {arrow.label}\n{_json(arrow.said)}"
        self._out.append(f"<g><title>{_xml(detail)}</title>")
        if start == end:
            path = f"M{start + 5} {y - 8}h34v12h-30"
        else:
            side = 6 if end > start else -6
            path = f"M{start + side} {y}H{end - side}"
        self._out.append(f'<path class="{kinds}" d="{path}" marker-end="url(#{marker})"/></g>')
        took = f" {_ms(arrow.duration_us)}" if arrow.duration_us is not None else ""
        text = _cut(("✗ " if bad else "") + _one_line(arrow) + took, abs(end - start) - 16 if start != end else _COLUMN - 60)
        at, anchor = ((start + end) / 2, "middle") if start != end else (start + 44, "start")
        self._text(at, y - 5, text, "bad-text" if bad else "", anchor=anchor, detail=detail, small=True)

    def _note(self, index: int, note: Note) -> None:
        self._clock(index, note.time)
        text = _cut(("✗ " if note.failed else "• ") + note.label, _COLUMN - 30)
        self._text(self._x[note.actor] + 12, self._y[index], text, "bad-text" if note.failed else "dim", detail=note.label, small=True)

    def _clock(self, index: int, time: int) -> None:
        self._text(_LEFT - 8, self._y[index], f"+{_ms(time - self._found.parts[0].time)}", "dim", anchor="end", small=True)

    def _box(self, kinds: str, x: float, y: float, width: float, height: float, detail: str) -> None:
        self._out.append(
            f'<rect class="{kinds}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="2"><title>{_xml(detail)}</title></rect>'
        )

    def _text(
        self, x: float, y: float, text: str, kinds: str, *, anchor: str = "start", size: int = 12, bold: bool = False, detail: str = "",
        small: bool = False,
    ) -> None:  # fmt: skip
        title = f"<title>{_xml(detail)}</title>" if detail else ""
        look = f' font-size="{11 if small else size}"' + (' font-weight="600"' if bold else "") + (f' class="{kinds}"' if kinds else "")
        self._out.append(f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{look}>{title}{_xml(text)}</text>')


def _one_line(arrow: Arrow) -> str:
    if arrow.says in ("ask", "tell"):
        return arrow.label + (f" {_json(arrow.said)}" if arrow.said else "")
    return arrow.label + (f" {_json(arrow.said)}" if arrow.says == "reply" and arrow.said is not None else "")


def _ms(duration_us: int) -> str:
    if duration_us < 10_000:
        return f"{duration_us / 1_000:.1f} ms"
    return f"{duration_us / 1_000:.0f} ms" if duration_us < 10_000_000 else f"{duration_us / 1_000_000:.1f} s"


def _json(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _DETAIL_CHARACTERS_MAX else text[: _DETAIL_CHARACTERS_MAX - 1] + "…"


def _cut(text: str, width: float) -> str:
    room = max(4, int(width / _CHARACTER))
    return text if len(text) <= room else text[: room - 1] + "…"


def _xml(text: str) -> str:
    """`text` as XML may hold it: without control characters, which no escape makes legal."""
    return escape("".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text), {'"': "&quot;"})
