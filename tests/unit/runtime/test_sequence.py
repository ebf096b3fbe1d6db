"""Who said what to whom, as a list and as pictures: read off recorded edges."""

import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from events.ids import StreamId
from events.sqlite.reader_sqlite import SqliteLogReader
from ops import trace_svg
from ops.trace_svg import picture
from runtime.past.causes import trace
from runtime.past.sequence import Arrow, Note, Sequence, Work, mermaid, messages, sequence
from tests.support.errands import run_errands

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
async def reader(tmp_path: Path) -> AsyncIterator[SqliteLogReader]:
    await run_errands(tmp_path / "log")
    found = await SqliteLogReader.open(tmp_path / "log")
    yield found
    await found.close()


async def drawn(reader: SqliteLogReader, correlation_id: str) -> Sequence:
    return sequence(await trace(reader, correlation_id))


async def test_each_message_names_sender_receiver_arguments_and_answer(reader: SqliteLogReader) -> None:
    rows = messages(await drawn(reader, "errand-1"))
    assert [(row["sender"], row["receiver"], row["says"], row["method"], row["arguments"], row["reply"]) for row in rows] == [
        ("client", "buyer/bob", "ask", "buy", {"item": "tea"}, 10),
        ("buyer/bob", "shop/corner", "ask", "price", {"item": "tea"}, 3),
        ("buyer/bob", "clerk/anna", "tell", "note", {"item": "tea"}, None),
    ]
    assert rows[0]["duration_us"] > rows[1]["duration_us"] > 0


async def test_a_failure_stands_with_the_message_that_it_answers(reader: SqliteLogReader) -> None:
    refused = messages(await drawn(reader, "errand-3"))
    assert [row["error"] for row in refused] == ["not for sale", "not for sale"]
    failed = messages(await drawn(reader, "errand-4"))
    assert all("burns" in row["error"] for row in failed)


async def test_steps_have_what_they_were_given_what_came_back_and_how_long_they_took(reader: SqliteLogReader) -> None:
    """What a step was given and what it returned."""
    found = await drawn(reader, "errand-1")
    works = [part for part in found.parts if isinstance(part, Work)]
    assert [(work.actor, work.label, work.given, work.result, work.failed) for work in works] == [
        ("buyer/bob", "step weigh", [], 7, None), ("clerk/anna", "step write", [], None, None),
    ]  # fmt: skip
    assert all(work.end is not None and work.duration_us is not None and work.duration_us > 0 for work in works)
    (bottle,) = (part for part in (await drawn(reader, "errand-4")).parts if isinstance(part, Work))
    assert "burns" in str(bottle.failed)


async def test_every_actor_and_every_message_is_in_the_picture(reader: SqliteLogReader) -> None:
    found = await drawn(reader, "errand-1")
    root = ET.fromstring(picture(found))
    texts = ["".join(element.itertext()) for element in root.iter(f"{SVG}text")]
    for expected in ("client", "buyer/bob", "shop/corner", "clerk/anna", "step weigh", "reply 10", 'price {"item":"tea"}'):
        assert any(expected in text for text in texts), expected
    arrows = [part for part in found.parts if isinstance(part, Arrow)]
    assert len([path for path in root.iter(f"{SVG}path") if path.get("marker-end")]) == len(arrows)
    assert not root.findall(f".//{SVG}script")


async def test_nothing_that_was_recorded_becomes_markup(reader: SqliteLogReader) -> None:
    """The error text holds a closing tag and quotes."""
    document = picture(await drawn(reader, "errand-4"))
    root = ET.fromstring(document)
    assert document.count("</svg>") == 1
    assert any('acid </svg> & "smoke" burns' in "".join(element.itertext()) for element in root.iter(f"{SVG}title"))
    assert [box.get("class") for box in root.iter(f"{SVG}rect") if "bad" in str(box.get("class"))]


async def test_what_is_under_way_is_drawn_open(reader: SqliteLogReader) -> None:
    """A log that ends within a step: nobody has ended anything yet."""
    from runtime.past.causes import Trace, cause_tree

    whole = (await trace(reader, "errand-1")).events
    cut = [event for event in whole if event.stream == StreamId("buyer/bob")][:4]
    found = sequence(Trace(correlation_id="errand-1", events=cut, roots=await cause_tree(reader, cut)))
    (work,) = (part for part in found.parts if isinstance(part, Work))
    assert (work.end, [turn.ended for turn in found.turns]) == (None, [False])
    classes = [box.get("class") for box in ET.fromstring(picture(found)).iter(f"{SVG}rect")]
    assert "turn open" in classes
    assert "work open" in classes


async def test_a_picture_of_too_much_says_how_much_is_missing(reader: SqliteLogReader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_svg, "PARTS_MAX", 4)
    found = await drawn(reader, "errand-1")
    assert f"… {len(found.parts) - 4} more" in picture(found)


async def test_control_characters_become_no_broken_xml(reader: SqliteLogReader) -> None:
    found = await drawn(reader, "errand-1")
    found.parts.append(Note(time=found.parts[-1].time, actor="client", label="\x1b[31m\x00 red", failed=True, place="0:1"))
    ET.fromstring(picture(found))


async def test_mermaid_has_a_line_per_message(reader: SqliteLogReader) -> None:
    text = mermaid(await drawn(reader, "errand-3"))
    assert "p1->>p2: price" in text
    assert "p2--xp1: not for sale" in text
    assert "p1--xp0: refused: not for sale" in text
