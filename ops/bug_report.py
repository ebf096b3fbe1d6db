"""What `cuebook export --correlation` takes out: values of fields that the app marks as `Sensitive`, found in the bodies themselves."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from actors.errors import Unknown
from actors.journal import TURN_COMPLETED, TURN_STARTED
from actors.registry import ActorType, Method, Registry
from actors.sensitive import sensitive_values
from events.envelope import Kind, RecordedEvent
from events.ids import StreamId, parse_stream_id
from events.keeping.export_lines import InboxLine
from events.keeping.redact import Redactor
from projections.operations import Operation, operations_of
from projections.projection import Projection
from runtime.app import App


def redactor_of(app: App | None, named: Iterable[str], events: Iterable[RecordedEvent], commands: Iterable[InboxLine]) -> Redactor:
    """What redacts a bug report: the values in `named`, and every value that stood in a field marked as sensitive, also in what a view
    answered from other conversations (`app` None: the marks are not known, as there is no code)."""
    values = set(named)
    if app is not None:
        registry, operations = app.registry, _operations(app)
        for event in events:
            values.update(_texts(_of_event(registry, event)))
            values.update(_texts(_of_view(operations, event)))
        for line in commands:
            method = _method(registry, line.stream, line.method)
            if method is not None:
                values.update(_texts(_of_call(method, bytes(line.args), bytes(line.reply))))
    return Redactor(values)


def _texts(values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        yield value if isinstance(value, str) else str(value)


def _of_event(registry: Registry, event: RecordedEvent) -> Iterator[Any]:
    kind = _kind(registry, event.stream)
    if kind is None:
        return
    payload = _plain(bytes(event.payload))
    if event.kind is Kind.STATE:
        if (known := kind.events.get(event.type)) is not None:
            # Also of an older schema version: what kept its name is found.
            yield from sensitive_values(known.cls, payload)
    elif not isinstance(payload, dict):
        return
    elif event.type == TURN_STARTED:
        yield from _of_arguments(_method(registry, event.stream, payload.get("command")), payload.get("arguments"))
    elif event.type == TURN_COMPLETED:
        for method in kind.methods.values():  # which one it was stands in an earlier event: too much rather than too little
            yield from sensitive_values(method.returns, payload.get("reply"))
    elif "receiver" in payload:
        yield from _of_arguments(_method(registry, payload["receiver"], payload.get("method")), payload.get("arguments"))
    elif "method" in payload:
        yield from _of_arguments(_method(registry, event.stream, payload["method"]), payload.get("arguments"))
    elif event.type.startswith("ask.") and "." in str(payload.get("name")):
        receiver, _, name = str(payload["name"]).partition(".")
        asked = _method(registry, receiver, name)
        yield from _of_arguments(asked, payload.get("arguments"))
        if asked is not None:
            yield from sensitive_values(asked.returns, payload.get("result"))


def _operations(app: App) -> dict[str, Operation]:
    """Of the app's projections, by the name under which a turn records their use: ``projection.operation``."""
    made = [each for each in (make() for make in app.projections) if isinstance(each, Projection)]
    return {f"{each.name}.{name}": operation for each in made for name, operation in operations_of(each).items()}


def _of_view(operations: Mapping[str, Operation], event: RecordedEvent) -> Iterator[Any]:
    if not event.type.startswith("view."):
        return
    payload = _plain(bytes(event.payload))
    operation = operations.get(str(payload.get("name"))) if isinstance(payload, dict) else None
    if operation is not None:
        yield from sensitive_values(operation.arguments, payload.get("arguments"))
        yield from sensitive_values(operation.returns, payload.get("result"))


def _of_arguments(method: Method | None, arguments: Any) -> Iterator[Any]:
    if method is not None:
        yield from sensitive_values(method.arguments, arguments)


def _of_call(method: Method, args: bytes, reply: bytes) -> Iterator[Any]:
    yield from sensitive_values(method.arguments, _plain(args))
    yield from sensitive_values(method.returns, _plain(reply))


def _kind(registry: Registry, stream: str) -> ActorType[Any] | None:
    return registry.types.get(parse_stream_id(StreamId(stream))[0])


def _method(registry: Registry, stream: str, name: object) -> Method | None:
    try:
        kind = _kind(registry, stream)
        return None if kind is None else kind.method(str(name))
    except (Unknown, ValueError):
        return None


def _plain(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None
