"""`trace`: one conversation as a tree of turns, as what was said, or as a picture."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from ops import event_loop
from ops.commands.access import open_log
from ops.commands.common import DEFAULTS, Common
from ops.commands.final import Provisional, final_part, note_withheld
from ops.commands.graph_path import trace_graph, write_document
from ops.commands.look import turn_record
from ops.exits import CommandError, Exit
from ops.output import print_json, print_rows, wants_json

if TYPE_CHECKING:
    from runtime.past.causes import Trace


def trace(
    correlation_id: Annotated[str, Parameter(help="The correlation id, as `show` and `log` give it; or a graph actor, as TYPE/ID.")],
    *,
    messages: Annotated[bool, Parameter(help="Who said what to whom: one row per message, an ask with its answer.")] = False,
    mermaid: Annotated[bool, Parameter(help="As a Mermaid sequence diagram; of a graph as a flowchart.")] = False,
    svg: Annotated[Path | None, Parameter(help="Write a picture of it into this file ('-' = stdout); any browser shows it.")] = None,
    thread: Annotated[str, Parameter(help="Of a graph: the conversation.")] = "main",
    run: Annotated[str | None, Parameter(help="Of a graph: the command id of one of its runs (default: the last one).")] = None,
    app: Annotated[str | None, Parameter(help="Of a graph: the code with its shape, MODULE:OBJECT (default: the deployment's).")] = None,
    provisional: Provisional = False,
    common: Common = DEFAULTS,
) -> None:
    """Show which turn caused which in a conversation; of a graph, its path.

    Its events are in: cuebook log corr:ID -n 0
    Example: cuebook trace errand-1 --svg errand.svg
    Of a graph: cuebook trace travel/1 --svg path.svg
    """
    from events.selection import correlated
    from runtime.past import causes, sequence

    if messages + mermaid + (svg is not None) > 1:
        raise CommandError("--messages, --mermaid and --svg are three answers", next_step="name one of them", code=Exit.USAGE)
    settings = common.load().settings
    if trace_graph(settings, correlation_id, thread=thread, run=run, app=app, mermaid=mermaid, svg=svg, json=common.json):
        return

    async def main() -> causes.Trace:
        async with open_log(settings) as reader:
            end = await final_part(settings, reader, provisional=provisional)
            found = await causes.trace(reader, correlation_id, upto=None if end is None else end.positions)
            await note_withheld(reader, end, correlated(correlation_id))
            return found

    found = event_loop.run(main())
    if not found.events:
        raise CommandError(f"nothing is recorded under the correlation id {correlation_id}", next_step="cuebook log", code=Exit.NOT_FOUND)
    if mermaid:
        print(sequence.mermaid(sequence.sequence(found)), end="")
    elif svg is not None:
        _write(svg, found)
    elif messages:
        _print_messages(sequence.messages(sequence.sequence(found)), json=common.json, title=correlation_id)
    else:
        _print_turns(found, json=common.json)


def _write(svg: Path, found: "Trace") -> None:
    from ops.trace_svg import picture
    from runtime.past.sequence import sequence

    write_document(svg, picture(sequence(found)), f"{len(found.events):,} events")


def _print_turns(found: "Trace", *, json: bool) -> None:
    from runtime.past.causes import flat

    turns = flat(found.roots)
    if wants_json(json):
        for depth, node in turns:
            print_json({"depth": depth, **turn_record(node)})
        return
    rows = [
        {
            "turn": "  " * depth + node.stream,
            "method": node.method,
            "status": node.status or node.error,
            "ms": round(node.duration_us / 1_000, 1),
            "events": len(node.positions),
            "first": node.positions[0],
            "command_id": node.command_id,
        }
        for depth, node in turns
    ]
    print_rows(rows, json=False, title=found.correlation_id)


def _print_messages(rows: list[dict[str, Any]], *, json: bool, title: str) -> None:
    if wants_json(json):
        for row in rows:
            print_json(row)
        return
    start = rows[0]["time"] if rows else 0
    print_rows([_message_line(row, start) for row in rows], json=False, title=title)


def _message_line(row: dict[str, Any], start: int) -> dict[str, Any]:
    return {
        "ms": round((row["time"] - start) / 1_000, 1),
        "from": row["sender"],
        "to": row["receiver"],
        "says": f"{row['says']} {row['method']}",
        "with": row["arguments"],
        "answer": f"failed: {row['error']}" if row["error"] else row["reply"],
        "took ms": None if row["duration_us"] is None else round(row["duration_us"] / 1_000, 1),
        "event": row["place"],
    }
