"""The one structlog.configure of a process: console on a terminal, JSON lines into DATA/logs/<role>.log, rotated.

Everything goes through the standard library's handlers, so that lines of nats-py and asyncio land in the same places
and shapes. A turn binds its ids with `bound_ids`; hot paths log at debug only, and a filtered call formats nothing.
"""

import logging
import logging.handlers
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import structlog

from ops.output import colour_wanted
from ops.private_files import make_private_folder

FILE_BYTES_MAX = 10 * 1024 * 1024
FILES_KEPT = 5
SECRET_KEYS = frozenset({"password", "token", "secret", "credentials", "authorization", "api_key", "seed"})


def configure(role: str, *, data: Path | None, level: str = "info", console: bool | None = None) -> None:
    """Configure logging of this process; a second call replaces the first.

    Args:
        role: names the file (`worker-1`) and is bound to every line.
        data: the deployment's folder; None writes no file.
        level: the lowest level that is written.
        console: also write to stderr; None = if it is a terminal.
    """
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.ExtraAdder(),
        hide_secrets,
    ]
    number = logging.getLevelNamesMapping()[level.upper()]
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    root.setLevel(number)
    if console if console is not None else sys.stderr.isatty():
        plain = structlog.dev.plain_traceback
        renderer = structlog.dev.ConsoleRenderer(colors=colour_wanted(sys.stderr), exception_formatter=plain)
        root.addHandler(_formatted(logging.StreamHandler(sys.stderr), shared, [renderer]))
    if data is not None:
        folder = make_private_folder(data / "logs")
        file = logging.handlers.RotatingFileHandler(
            folder / f"{role}.log", maxBytes=FILE_BYTES_MAX, backupCount=FILES_KEPT, encoding="utf-8", delay=True
        )
        tail = [
            # Never the local variables: among them are passwords, and what sealed actors were told (S29).
            structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False)),
            structlog.processors.JSONRenderer(ensure_ascii=False, default=str),
        ]
        root.addHandler(_formatted(file, shared, tail))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(role=role)


@contextmanager
def bound_ids(*, correlation_id: str, command_id: str) -> Iterator[None]:
    """Bind the ids of a turn to every line written within, and give back what was bound before.

    Bind from each envelope anew: a task copies its context when it is made, so a long-lived one would log the ids of
    its first sender for ever.
    """
    with structlog.contextvars.bound_contextvars(correlation_id=correlation_id, command_id=command_id):
        yield


def hide_secrets(_logger: object, _name: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Blank values under telling keys, and user and password inside URLs."""
    for key, value in line.items():
        if key.lower() in SECRET_KEYS:
            line[key] = "***"
        elif isinstance(value, str) and "://" in value and "@" in value:
            line[key] = without_userinfo(value)
    return line


def without_userinfo(text: str) -> str:
    """Return a URL without user and password; any other text as it is."""
    try:
        netloc = urlsplit(text).netloc
    except ValueError:
        return text
    return text.replace(netloc, "***@" + netloc.rpartition("@")[2], 1) if "@" in netloc else text


def _formatted(handler: logging.Handler, shared: list[Any], renderers: list[Any]) -> logging.Handler:
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    return handler
