"""Two runs side by side as one HTML page that opens offline: nothing is loaded, nothing runs, everything recorded is escaped."""

import base64
import hashlib
from html import escape
from typing import Any, Final

import msgspec

from events.envelope import RecordedEvent
from runtime.past.comparison import Comparison, Side, StreamPair, Usage

_ROWS_MAX: Final = 200
"""Lines of one state patch on the page; `--json` has all."""

_STYLE: Final = """
:root { --bg:#fbfbf9; --card:#fff; --ink:#22252b; --soft:#666c78; --line:#e6e6e1; --left:#a2485d; --right:#2f6f9f; --left-bg:#fbeef0;
  --right-bg:#eaf2f9; --same:#7d9a7d; color-scheme: light dark }
@media (prefers-color-scheme: dark) { :root { --bg:#15171b; --card:#1d2026; --ink:#e4e6ea; --soft:#9aa1ae; --line:#2d3139; --left:#ee95a7;
  --right:#84bde8; --left-bg:#38232a; --right-bg:#1d2d3b; --same:#7fa37f } }
* { box-sizing:border-box }
body { margin:0; background:var(--bg); color:var(--ink); font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;
  -webkit-text-size-adjust:100% }
main { max-width:1120px; margin:0 auto; padding:28px 24px 64px }
h1 { font-size:26px; line-height:1.25; margin:0 0 4px; font-weight:650 }
h2 { font-size:17px; margin:0 0 10px; font-weight:650; overflow-wrap:anywhere }
h3 { font-size:14px; margin:16px 0 6px; font-weight:600; color:var(--soft) }
p { margin:0 0 8px }
.soft { color:var(--soft) } .a { color:var(--left) } .b { color:var(--right) }
section { background:var(--card); border:1px solid var(--line); border-radius:12px; padding:18px 22px; margin:16px 0 }
.scroll { overflow-x:auto }
table { border-collapse:collapse; width:100%; font-size:14px }
th { text-align:left; font-weight:600; color:var(--soft) }
th, td { padding:5px 10px 5px 0; border-bottom:1px solid var(--line); vertical-align:top }
td.n, th.n { text-align:right; font-variant-numeric:tabular-nums }
.two { display:grid; grid-template-columns:minmax(0,1fr) minmax(0,1fr); gap:14px }
.cell { border-radius:8px; padding:10px 12px; min-width:0 } .cell.a { background:var(--left-bg) } .cell.b { background:var(--right-bg) }
pre, code { font:12.5px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace }
pre { margin:6px 0 0; white-space:pre-wrap; overflow-wrap:anywhere; color:var(--ink) }
code { overflow-wrap:anywhere }
td code { overflow-wrap:normal; white-space:nowrap }
svg { display:block; width:100%; height:14px; border-radius:7px }
@media (max-width:640px) { main { padding:18px 12px 40px } .two { grid-template-columns:minmax(0,1fr) } section { padding:14px } }
"""


def render(found: Comparison) -> str:
    """The whole page."""
    policy = f"default-src 'none'; style-src 'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'; img-src data:"
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">',
        f"<title>{escape(found.left.name)} and {escape(found.right.name)}</title><style>{_STYLE}</style></head><body><main>",
        f'<h1><span class="a">{escape(found.left.name)}</span> and <span class="b">{escape(found.right.name)}</span></h1>',
        f'<p class="soft">{escape(summary(found))}</p>',
        _sums(found.left, found.right),
        *(_stream(pair) for pair in found.streams),
        "</main></body></html>\n",
    ]
    return "\n".join(parts)


def summary(found: Comparison) -> str:
    """One sentence: whether they differ, and where first."""
    if found.first is None or found.first.divergence is None:
        return f"Alike: {len(found.streams)} streams say the same from the first to the last event."
    apart = sum(pair.divergence is not None for pair in found.streams)
    at = found.first
    event = found.first.divergence.left or found.first.divergence.right
    where = "" if event is None else f" at version {event.version} ({event.type})"
    return f"{apart} of {len(found.streams)} streams differ, first {at.left or at.right}{where}, after {at.same} events alike."


def sums(left: Side, right: Side) -> list[tuple[str, str, str, str]]:
    """What each side took: label, left, right, difference."""
    rows = []
    for label, of, show in _MEASURES:
        a, b = of(left.usage), of(right.usage)
        rows.append((label, show(a), show(b), "" if a == b else ("+" if b > a else "-") + show(abs(b - a))))
    return rows


def _whole(value: float) -> str:
    return f"{value:,.0f}"


def _ms(value: float) -> str:
    return f"{value / 1_000:,.1f} ms"


def _usd(value: float) -> str:
    return f"${value:,.4f}"


_MEASURES: Final[tuple[tuple[str, Any, Any], ...]] = (
    ("events", lambda usage: usage.events, _whole),
    ("turns", lambda usage: usage.turns, _whole),
    ("steps", lambda usage: usage.steps, _whole),
    ("failures", lambda usage: usage.failures, _whole),
    ("from first to last event", lambda usage: usage.elapsed_us, _ms),
    ("in effects", lambda usage: usage.step_us, _ms),
    ("input tokens", lambda usage: usage.input_tokens, _whole),
    ("output tokens", lambda usage: usage.output_tokens, _whole),
    ("cost", lambda usage: usage.cost_usd, _usd),
)


def _sums(left: Side, right: Side) -> str:
    rows = "".join(
        f'<tr><td>{escape(label)}</td><td class="n">{a}</td><td class="n">{b}</td><td class="n soft">{escape(change)}</td></tr>'
        for label, a, b, change in sums(left, right)
    )
    streams = "".join(
        f'<tr><td><code>{escape(name)}</code></td><td class="{side}">{side}</td>{_cells(usage)}</tr>'
        for side, one in (("a", left), ("b", right))
        for name, usage in one.streams.items()
    )
    return (
        '<section><h2>What each took</h2><div class="scroll"><table><thead><tr><th></th>'
        f'<th class="n"><span class="a">{escape(left.name)}</span></th><th class="n"><span class="b">{escape(right.name)}</span></th>'
        f'<th class="n">difference</th></tr></thead><tbody>{rows}</tbody></table></div>'
        '<h3>per stream</h3><div class="scroll"><table><thead><tr><th>stream</th><th>side</th>'
        '<th class="n">events</th><th class="n">steps</th>'
        '<th class="n">failures</th><th class="n">in effects</th><th class="n">tokens</th><th class="n">cost</th></tr></thead>'
        f"<tbody>{streams}</tbody></table></div></section>"
    )


def _cells(usage: Usage) -> str:
    shown = (
        _whole(usage.events), _whole(usage.steps), _whole(usage.failures), _ms(usage.step_us),
        _whole(usage.input_tokens + usage.output_tokens), _usd(usage.cost_usd),
    )  # fmt: skip
    return "".join(f'<td class="n">{value}</td>' for value in shown)


def _stream(pair: StreamPair) -> str:
    names = " and ".join(dict.fromkeys(escape(str(name)) for name in (pair.left, pair.right) if name is not None))
    parts = [f"<section><h2>{names}</h2>"]
    divergence = pair.divergence
    if divergence is None:
        parts.append(f'<p class="soft">Alike: {pair.same} events.</p>')
    else:
        side = "" if pair.left is not None and pair.right is not None else ": only one side has this stream"
        parts.append(f"<p>{pair.same} events alike, then they differ by <b>{escape(divergence.what)}</b>{side}.</p>")
        parts.append(f'<div class="two">{_event(divergence.left, "a")}{_event(divergence.right, "b")}</div>')
        if divergence.patch:
            parts.append(f"<h3>payload</h3>{_patch(divergence.patch)}")
    if pair.state_patch:
        parts.append(f"<h3>state at the end, from left to right</h3>{_patch(pair.state_patch)}")
    elif pair.note is not None:
        parts.append(f'<p class="soft">{escape(pair.note)}</p>')
    return "".join(parts) + "</section>"


def _event(event: RecordedEvent | None, side: str) -> str:
    if event is None:
        return f'<div class="cell {side}">no further event</div>'
    error = "" if event.error is None else f"<p>{escape(event.error)}</p>"
    payload = msgspec.json.format(bytes(event.payload), indent=2).decode()
    return (
        f'<div class="cell {side}"><b>{escape(event.type)}</b> <span class="soft">{event.stream} version {event.version}, '
        f"{event.shard}:{event.position}</span>{error}<pre>{escape(payload[:4_000])}</pre></div>"
    )


def _patch(patch: list[dict[str, Any]]) -> str:
    rows = "".join(
        f"<tr><td>{escape(str(change['op']))}</td><td><code>{escape(str(change['path']) or '/')}</code></td>"
        f"<td><code>{escape(msgspec.json.encode(change['value']).decode()[:2_000]) if 'value' in change else ''}</code></td></tr>"
        for change in patch[:_ROWS_MAX]
    )
    more = "" if len(patch) <= _ROWS_MAX else f'<p class="soft">and {len(patch) - _ROWS_MAX:,} more</p>'
    return f'<div class="scroll"><table><tbody>{rows}</tbody></table></div>{more}'
