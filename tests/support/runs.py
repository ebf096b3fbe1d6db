"""Runs as a client sees them: started, watched and decided over NATS."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from actors.errors import ActorError
from runtime.client import Client
from tests.support.crew import orders
from tests.support.deployment import Deployment

APP = "tests.support.crew:app"
MINE: dict[str, Any] = {"session": "window-1"}


def step(name: str, *after: str, agent: str = "codesmith", **given: Any) -> dict[str, Any]:
    return {"id": name, "agent": agent, "task": orders(**given), "after": list(after)}


def plan(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"summary": "a plan", "steps": list(steps)}


class Run:
    """One run of a deployment."""

    def __init__(self, cue: Client, name: str) -> None:
        self.name = name
        self._ref = cue.ref("task", name, timeout_s=30)

    async def ask(self, method: str, **arguments: Any) -> Any:
        return await self._ref.ask(method, **arguments)

    async def start(self, **more: Any) -> Any:
        return await self.ask("start", goal="an app", **{**MINE, **more})

    async def asked(self, **more: Any) -> Any:
        """Start, and wait for the proposal."""
        await self.start(**more)
        return await self.until(lambda status: status["phase"] == "awaiting_approval")

    async def until(self, holds: Callable[[Any], Any], timeout_s: float = 60.0) -> Any:
        """The first status of which `holds` is true; owners may change meanwhile."""
        status: Any = None
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    try:
                        status = await self.ask("status")
                    except ActorError as error:
                        if not error.retryable or error.final:
                            raise
                    else:
                        if holds(status):
                            return status
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"after {timeout_s:.0f} s the run {self.name} still stands so: {status}") from None

    async def ended(self) -> Any:
        return await self.until(lambda status: status["phase"] == "ended")


def standing(status: Any) -> list[str]:
    return [each["status"] for each in status["steps"]]


def kill_all(deployment: Deployment) -> None:
    """SIGKILL every worker; `up` starts others."""
    for pid in set(deployment.owners().values()):
        deployment.kill_worker(pid)
    deployment.wait_owned()


def contents(root: Path) -> dict[str, bytes]:
    """Every file of a workspace, but for what Cuebook keeps there for itself."""
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files if not path.relative_to(root).parts[0].startswith(".")}
