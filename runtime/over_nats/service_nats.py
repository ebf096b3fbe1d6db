"""``$SRV``: NATS micro discovery, so that ``nats micro ls/info/stats`` shows what runs here (S7, design.md 3).

Written by hand instead of through nats.micro, because asks reach us on the shard's subject: endpoint subscriptions of a service would be a
second path to the same handler.
"""

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar, Final

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg

from actors.registry import Registry
from events.codec import encode
from events.errors import ConfigurationError
from events.memo import memo_statistics
from runtime.past.log_service import OPERATIONS
from runtime.wire import Subjects

SERVICE_NAME: Final = "cuebook"


class Service:
    """Answers PING, INFO and STATS of one worker."""

    name: ClassVar[str] = SERVICE_NAME

    def __init__(
        self,
        client: Client,
        subjects: Subjects,
        registry: Registry,
        *,
        worker: str,
        version: str,
        incarnation: str,
        started: str,
        counts: Callable[[], dict[str, int]],
        step_cache: Callable[[], object] | None = None,
    ) -> None:
        self._nc = client
        self._subjects = subjects
        self._registry = registry
        self._identity = {"name": self.name, "id": worker, "version": version, "metadata": {"incarnation": incarnation}}
        self._started = started
        self._counts = counts
        self._step_cache = step_cache

    async def start(self) -> None:
        worker = self._identity["id"]
        for verb, answer in (("PING", self._ping), ("INFO", self._info), ("STATS", self._stats)):
            for subject in (f"$SRV.{verb}", f"$SRV.{verb}.{self.name}", f"$SRV.{verb}.{self.name}.{worker}"):
                await self._nc.subscribe(subject, cb=self._responder(answer))

    def _responder(self, answer: Callable[[], dict[str, Any]]) -> Callable[[Msg], Any]:
        async def respond(message: Msg) -> None:
            if message.reply:
                await message.respond(encode(answer()))

        return respond

    def _ping(self) -> dict[str, Any]:
        return {"type": "io.nats.micro.v1.ping_response", **self._identity}

    def endpoints(self) -> list[dict[str, Any]]:
        """What this process answers, for INFO."""
        endpoints = [self._endpoint(type_name, method) for type_name, kind in self._registry.types.items() for method in kind.methods]
        endpoints += [
            {"name": f"log_{operation}", "subject": self._subjects.log(operation), "queue_group": "cue", "metadata": {}}
            for operation in OPERATIONS
        ]
        return endpoints

    def _info(self) -> dict[str, Any]:
        return {
            "type": "io.nats.micro.v1.info_response",
            **self._identity,
            "description": "Event-sourced actors: ask, tell, and the log they leave.",
            "endpoints": self.endpoints(),
        }

    def _endpoint(self, type_name: str, method_name: str) -> dict[str, Any]:
        method = self._registry.types[type_name].methods[method_name]
        return {
            "name": f"{type_name}_{method_name}",
            "subject": f"{self._subjects.namespace}.ask.{type_name}.*.{method_name}",
            "queue_group": "",
            "metadata": {
                "kind": "query" if method.query else "command",
                "summary": method.summary,
                "request_schema": encode(msgspec.json.schema(method.arguments)).decode(),
                "response_schema": schema_text(method.returns),
            },
        }

    def _stats(self) -> dict[str, Any]:
        return {
            "type": "io.nats.micro.v1.stats_response",
            **self._identity,
            "started": self._started,
            "endpoints": [
                {"name": name, "num_requests": count, "num_errors": 0, "processing_time": 0, "average_processing_time": 0}
                for name, count in sorted(self._counts().items())
            ],
            "memos": memo_statistics(),
            "step_cache": None if self._step_cache is None else self._step_cache(),
        }


def schema_text(annotation: Any) -> str:
    """A JSON Schema, or {} where the annotation is none that JSON Schema can describe."""
    try:
        return encode(msgspec.json.schema(annotation)).decode()
    except TypeError:
        return "{}"


async def check_namespace(client: Client, namespace: str, incarnation: str) -> None:
    """Refuse to start where another log answers under our namespace (S7).

    Raises:
        ConfigurationError: one does; names its incarnation.
    """
    inbox = client.new_inbox()
    others: list[bytes] = []

    async def heard(message: Msg) -> None:
        if message.data:  # else the server's own word that nobody listens
            others.append(message.data)

    subscription = await client.subscribe(inbox, cb=heard)
    await client.publish(f"$SRV.INFO.{SERVICE_NAME}", b"", reply=inbox)
    await client.flush()
    # A reply needs one loop turn of the other worker; nothing depends on hearing a slow one, the epochs fence (S3).
    await asyncio.sleep(0.1)
    await subscription.unsubscribe()
    for body in others:
        info = msgspec.json.decode(body)
        endpoints = info.get("endpoints") or [{"subject": ""}]
        other = info.get("metadata", {}).get("incarnation")
        if endpoints[0]["subject"].startswith(f"{namespace}.") and other and other != incarnation:
            raise ConfigurationError(
                f"another log (incarnation {other}) answers as {namespace!r} on this NATS server; "
                "choose another namespace or another server",
                incarnation=other,
            )


def semver(version: str) -> str:
    """NATS micro wants three numbers."""
    parts = [part for part in version.split(".")[:3] if part.isdecimal()]
    return ".".join([*parts, "0", "0", "0"][:3])
