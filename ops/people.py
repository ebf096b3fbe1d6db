"""Whom a deployment knows, from its settings; and the key of its operator, which lies among its own files."""

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

from actors.people.known import OPERATOR, People, Person, digest_of
from actors.tasks.deciders import Decided
from actors.tasks.state import STARTER
from ops.exits import StartError
from ops.private_files import make_private_folder
from ops.settings import PersonSettings, Settings
from runtime.app import App

KEY_FILE: Final = "operator.key"


def with_people(app: App, people: People) -> App:
    """`app`, whose runs know `people`."""
    for kind in app.registry.types.values():
        if issubclass(kind.cls, Decided):
            app = app.adding(kind.cls.knowing(people), projections=app.projections)
    return app


def people_of(settings: Settings) -> People:
    """Everybody whom the settings name, and the operator, who has the key that lies in the deployment's folder.

    Raises:
        StartError: a key is not where the settings say, a name is taken, or two have the same key.
    """
    found = {digest_of(operator_key(settings.data)): Person(name=OPERATOR)}
    for name, person in settings.people.items():
        if name in (OPERATOR, STARTER):
            raise StartError(f"nobody can be called {name} in the settings", why="that name is taken", next_step=f"rename [people.{name}]")
        digest = _digest(name, person)
        if digest in found:
            raise StartError(f"{name} has the key of {found[digest].name}", next_step=f"another key in [people.{name}]")
        found[digest] = Person(name=name, roles=person.roles)
    return People(found)


def operator_key(data: Path) -> str:
    """The key of whoever operates the deployment in `data`, made at its first start; whoever can read it is the operator."""
    path = data / KEY_FILE
    if not path.exists():
        make_private_folder(data)
        made = path.with_name(f".{KEY_FILE}.{secrets.token_hex(4)}")
        descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
                handle.write(secrets.token_urlsafe(32) + "\n")
                handle.flush()
                os.fsync(handle.fileno())
            with suppress(FileExistsError):
                # Of several that start at once the first one's key counts, whole: a link never replaces what is there.
                os.link(made, path)
        finally:
            made.unlink()
    return read_key(f"file:{path}", whose="the operator")


def read_key(reference: str, *, whose: str) -> str:
    """The key that lies where `reference` (``env:NAME`` or ``file:PATH``) says.

    Raises:
        StartError: it is not there.
    """
    kind, _, place = reference.partition(":")
    try:
        if kind == "env":
            key = os.environ[place]
        elif kind == "file":
            key = Path(place).expanduser().read_text(encoding="utf-8").strip()
        else:
            raise StartError(f"{reference!r} is no place of a key", next_step="env:NAME or file:PATH")
    except (KeyError, OSError, UnicodeDecodeError) as error:
        why = f"the variable {place} is not set" if kind == "env" else str(error)
        step = "set it, or name another place: env:NAME or file:PATH"
        raise StartError(f"the key of {whose} is not there", why=why, next_step=step) from error
    if not key or len(key) > 256:
        raise StartError(f"the key of {whose} has {len(key)} characters", why=reference, next_step="1 to 256 characters")
    return key


def _digest(name: str, person: PersonSettings) -> str:
    kind, _, value = person.key.partition(":")
    return value if kind == "sha256" else digest_of(read_key(person.key, whose=name))
