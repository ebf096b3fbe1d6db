"""`cuebook compare`: two runs beside each other, on the terminal, as JSON, and as one page."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import Parameter

from ops import event_loop
from ops.commands.access import open_log, registry_of
from ops.commands.common import DEFAULTS, Common
from ops.commands.look import AppOption
from ops.exits import Exit
from ops.output import print_json, print_rows, progress, wants_json

if TYPE_CHECKING:
    from runtime.past.comparison import Comparison, StreamPair


def compare(
    left: Annotated[str, Parameter(help="A correlation id, or a stream as TYPE/ID.")],
    right: Annotated[str, Parameter(help="The other one, of the same kind.")],
    /,
    *,
    html: Annotated[Path | None, Parameter(help="Write one page that opens offline, too.")] = None,
    app: AppOption = None,
    common: Common = DEFAULTS,
) -> int:
    """Show where two runs first diverge, how their states differ, and what each took.

    Compares what was said, not ids and times. A fork stands for its parent.
    Example: cuebook compare errand-1 errand-2 --html two.html
    """
    from ops.comparison_html import render, summary, sums
    from runtime.past import comparison

    settings = common.load().settings
    registry = registry_of(settings, app)

    async def main() -> "Comparison":
        async with open_log(settings) as reader:
            return await comparison.compare(reader, registry, left, right)

    found = event_loop.run(main())
    if html is not None:
        html.write_text(render(found), encoding="utf-8")
        progress(f"{html} opens in any browser")
    if wants_json(common.json):
        for pair in found.streams:
            print_json(msgspec.structs.asdict(pair))
        print_json(
            {"left": found.left, "right": found.right, "first": None if found.first is None else found.first.left or found.first.right}
        )
    else:
        print_rows([_row(pair) for pair in found.streams], json=False)
        rows = [
            {"": label, found.left.name: a, f"{found.right.name} ": b, "difference": c} for label, a, b, c in sums(found.left, found.right)
        ]
        print_rows(rows, json=False)
        for pair in found.streams:
            if pair.state_patch:
                print_rows(pair.state_patch, json=False, columns=("op", "path", "value"), title=f"state, {pair.left} to {pair.right}")
    progress(summary(found))
    return int(Exit.OK)


def _row(pair: "StreamPair") -> dict[str, object]:
    divergence = pair.divergence
    sides = (None, None) if divergence is None else (divergence.left, divergence.right)
    return {
        "left": pair.left,
        "right": pair.right,
        "alike": pair.same,
        "differ by": None if divergence is None else divergence.what,
        "left has": None if sides[0] is None else f"{sides[0].type} at {sides[0].version}",
        "right has": None if sides[1] is None else f"{sides[1].type} at {sides[1].version}",
        "state": None if pair.state_patch is None else f"{len(pair.state_patch)} changes" if pair.state_patch else "equal",
    }
