"""The conformance suite of LangGraph against `EventLogSaver` (S38): every capability found, and every one passed."""

from collections.abc import AsyncIterator
from pathlib import Path

from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.capabilities import ALL_CAPABILITIES

from actors.graph import EventLogSaver


async def test_s38_all_eight_capabilities_are_found_and_passed(tmp_path: Path) -> None:
    made: list[Path] = []

    async def savers() -> AsyncIterator[EventLogSaver]:
        made.append(tmp_path / str(len(made)))
        async with EventLogSaver.open(made[-1], durability="process") as saver:
            yield saver

    report = await validate(checkpointer_test(name="EventLogSaver")(savers))
    results = report.results
    # `passed_all` alone is true of a saver that overrides nothing.
    assert {name for name, result in results.items() if result.detected} == {each.value for each in ALL_CAPABILITIES}
    assert len(results) == 8
    assert {name: result.failures for name, result in results.items() if result.failures} == {}
    assert all(result.passed and result.tests_passed for result in results.values())
    assert report.passed_all()
