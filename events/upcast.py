"""Old shapes of event payloads to new ones, on read only: what is stored never changes.

A step is a pure function from the payload of schema version n to that of n + 1, both plain JSON objects. The steps of one tag form a chain
that ends at the version which this program writes. Knows nothing of event classes: whoever reads decodes what comes out.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from events.codec import encode_checked
from events.errors import ConfigurationError, CuebookError
from events.ids import is_tag

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]
"""Pure: no clock, no randomness, no I/O. It owns the object that it gets, and may change and return it."""


class UpcastError(CuebookError):
    """A step cannot make the next version of a payload: stop this actor, keep the log."""

    code = "upcast"


class Chain(msgspec.Struct, frozen=True, kw_only=True):
    """The steps of one tag: ``steps[0]`` takes version `first`, the last one makes version `to`. No steps: only `to` is readable."""

    tag: str
    first: int
    to: int
    steps: tuple[Upcaster, ...]

    def reaches(self, version: int) -> bool:
        """Whether a payload of `version` can be read."""
        return self.first <= version <= self.to

    def upcast(self, payload: bytes | msgspec.Raw, version: int) -> bytes:
        """The payload of `version` as JSON in version `to`.

        Raises:
            UpcastError: it is no object, or a step raised or made something else than a JSON object; names the step.
        """
        value = msgspec.json.decode(payload)
        if not isinstance(value, dict):
            raise UpcastError(f"the payload of {self.tag} is no JSON object", type=self.tag, schema_version=version)
        for number in range(version, self.to):
            value = self._step(number, value)
        return encode_checked(value, f"{self.tag} from schema version {version}")

    def _step(self, version: int, value: dict[str, Any]) -> dict[str, Any]:
        step = self.steps[version - self.first]
        name = f"the upcaster of {self.tag} from version {version} to {version + 1}, {_name(step)},"
        try:
            made = step(value)
        except CuebookError:
            raise  # the trap of actors/traps.py says what the step reached for
        except Exception as error:  # the author's code may raise anything
            raise UpcastError(f"{name} raised {type(error).__name__}: {error}", type=self.tag, schema_version=version) from error
        if not isinstance(made, dict):
            raise UpcastError(f"{name} returned {type(made).__name__}, not a dict", type=self.tag, schema_version=version)
        return made


class Upcasters:
    """Steps by (tag, version). A step leads to the next version only, so there can be no cycle."""

    def __init__(self) -> None:
        self._steps: dict[str, dict[int, Upcaster]] = {}

    def add(self, tag: str, version: int, step: Upcaster) -> None:
        """Register the step from `version` to the next. The same function of a module that is loaded again replaces itself.

        Raises:
            ConfigurationError: no tag, no version, or another function has that step.
        """
        if not is_tag(tag):
            raise ConfigurationError(f"{_name(step)}: the tag {tag!r} is not dotted lower-case words such as 'account.deposited'")
        if version < 1:
            raise ConfigurationError(f"{_name(step)}: schema versions start at 1, not {version}")
        known = self._steps.setdefault(tag, {}).get(version)
        if known is not None and _name(known) != _name(step):
            raise ConfigurationError(f"{tag} version {version} has two upcasters: {_name(known)} and {_name(step)}")
        self._steps[tag][version] = step

    def chain(self, tag: str, to: int) -> Chain:
        """All steps of `tag`, which must lead to version `to` without a gap. None at all is a chain too: a type may be young.

        Raises:
            ConfigurationError: a step is missing, or leads beyond `to`.
        """
        steps = self._steps.get(tag, {})
        first = min(steps, default=to)
        for version in range(first, to):
            if version not in steps:
                raise ConfigurationError(
                    f"{tag} is at schema version {to}, but no upcaster leads from version {version} to {version + 1}: "
                    f'write one with @upcaster("{tag}", {version})'
                )
        beyond = max(steps, default=0)
        if beyond >= to:
            raise ConfigurationError(
                f"{_name(steps[beyond])} makes version {beyond + 1} of {tag}, but its class is at version {to}: give the class version="
                f"{beyond + 1}"
            )
        return Chain(tag=tag, first=first, to=to, steps=tuple(steps[version] for version in range(first, to)))


def _name(step: Upcaster) -> str:
    return f"{getattr(step, '__module__', '?')}.{getattr(step, '__qualname__', repr(step))}"
