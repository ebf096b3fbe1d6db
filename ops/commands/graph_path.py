"""`trace TYPE/ID`: the path that the runs of a graph actor took, on the shape of the graph where its code is at hand."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from events.ids import StreamId
from ops import event_loop
from ops.commands.access import app_of, open_log
from ops.exits import CommandError, Exit
from ops.output import print_json, print_rows, progress, wants_json
from ops.settings import Settings

if TYPE_CHECKING:
    from actors.graph.taken import Taken
    from events.envelope import RecordedEvent

_PAGE = 1_000


def trace_graph(
    settings: Settings, stream: str, *, thread: str, run: str | None, app: str | None, mermaid: bool, svg: Path | None, json: bool
) -> bool:
    """Show the path of a run of `stream`; False if that is no stream of a graph.

    Args:
        run: its command id, None = the last one of `thread`.
    """
    from events.ids import parse_stream_id

    try:
        type_name, _ = parse_stream_id(stream)
    except ValueError:
        return False
    events = event_loop.run(_events(settings, stream))
    if not any(event.type == "step.started" and b'"type":"graph.' in bytes(event.payload) for event in events):
        return False
    try:
        from actors.graph import drawing
        from actors.graph.taken import taken
    except ImportError as error:
        hint = "pip install 'cuebook[langgraph]'"
        raise CommandError(f"{stream} is a graph, and LangGraph is not here", why=str(error), next_step=hint) from error
    runs = [each for each in taken(events) if (each.thread == thread if run is None else run in each.command_ids)]
    if not runs:
        return False
    chosen = runs[-1]
    title = f"{stream} {chosen.command_ids[0]}" + ("" if chosen.thread == "main" else f" ({chosen.thread})")
    drawn = drawing.drawing(title, chosen, _shape(settings, app, type_name))
    if mermaid:
        print(drawing.mermaid(drawn), end="")
    elif svg is not None:
        from ops.graph_svg import picture

        write_document(svg, picture(drawn), f"{len(chosen.visits):,} nodes")
    else:
        _print(chosen, json=json)
    return True


def write_document(path: Path, document: str, what: str) -> None:
    """Write it into a file, or to stdout for ``-``, and say so. Raises: CommandError: it cannot be written."""
    if str(path) == "-":
        print(document, end="")
        return
    try:
        path.write_text(document, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{path} cannot be written", why=str(error), next_step="name another file", code=Exit.FAILURE) from error
    progress(f"{path}: {what}, {len(document) // 1024 + 1} KiB")


async def _events(settings: Settings, stream: str) -> "list[RecordedEvent]":
    async with open_log(settings) as reader:
        found: list[RecordedEvent] = []
        while True:
            page = await reader.read_stream(StreamId(stream), after=found[-1].version if found else 0, limit=_PAGE)
            found += page
            if len(page) < _PAGE:
                return found


def _shape(settings: Settings, app: str | None, type_name: str) -> Any:
    """The shape of the graph of that actor type; None if its code is not at hand."""
    from actors.graph import GraphActor
    from actors.graph.drawing import shape_of

    found = app_of(settings, app)
    kind = None if found is None else found.registry.types.get(type_name)
    if kind is None or not issubclass(kind.cls, GraphActor):
        progress(f"note: the shape of {type_name} is not known; name its code with --app. What was taken is shown")
        return None
    return shape_of(kind.cls._compiled)


def _print(run: "Taken", *, json: bool) -> None:
    from actors.graph.drawing import said

    if wants_json(json):
        for visit in run.visits:
            print_json({"node": visit.node, "order": visit.order, "at_us": visit.at_us, "took_us": visit.took_us, "effects": visit.effects})
        for each in run.interrupts:
            print_json({"interrupt": each.id, "node": each.node, "value": each.value, "outcome": each.outcome, "answer": each.answer})
        return
    questions: dict[str, list[str]] = {}
    for each in run.interrupts:
        questions.setdefault(each.node or "", []).append(said(each))
    rows: list[dict[str, Any]] = [
        {
            "order": visit.order,
            "node": visit.node,
            "ms": round((visit.at_us - run.began_us) / 1_000, 1),
            "took ms": round(visit.took_us / 1_000, 1),
            "effects": ", ".join(f"{name} ×{count}" for name, count in visit.effects.items()),
            "asked": "; ".join(questions.pop(visit.node, [])),
        }
        for visit in run.visits
    ]
    empty = {"order": "", "node": "", "ms": "", "took ms": "", "effects": "", "asked": ""}
    rows += [{**empty, "node": node, "asked": "; ".join(lines)} for node, lines in questions.items()]
    rows += [{**empty, "node": node, "effects": "under way"} for node in run.under_way]
    print_rows(rows, json=False, title=f"{run.command_ids[0]}: {run.status}")
