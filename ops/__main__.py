"""The `cuebook` command: build the verbs, run one, turn every outcome into an exit code.

Imports as little as it can: `--help` must not wait for NATS, SQLite or a model library. What a verb needs is imported
in its own module.
"""

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ops.commands import GROUP_SUMMARIES, HEADINGS, VERBS, Verb
from ops.exits import CommandError, Exit, print_error
from ops.search_path import check_packages

if TYPE_CHECKING:
    from cyclopts import App


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return the exit code of the process."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        check_packages()
        code = run_verb(arguments)
        # Here and not at interpreter exit, where a closed pipe would print a traceback.
        sys.stdout.flush()
    except CommandError as error:
        print_error(error)
        return int(error.code)
    except KeyboardInterrupt:
        return int(Exit.INTERRUPTED)
    except BrokenPipeError:
        # `cuebook log | head`: the reader has enough. Nothing may be flushed into the closed pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(Exit.OK)
    except Exception as error:  # noqa: BLE001  the outermost frame: everything becomes an exit code
        if "--debug" in arguments:
            traceback.print_exc()
        known = as_command_error(error)
        print_error(known)
        return int(known.code)
    return code


def run_verb(arguments: list[str]) -> int:
    """Parse and run; usage errors become CommandError with code USAGE."""
    from cyclopts import CycloptsError

    try:
        result = build_app(arguments)(arguments or ["--help"], exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        said = [line.strip() for line in str(error).splitlines() if line.strip()]
        words = " ".join(verb_of(arguments))
        raise CommandError(
            said[0] if said else "the command line does not fit",
            why=" ".join(said[1:]),
            next_step=" ".join(part for part in ("cuebook", words, "--help") if part),
            code=Exit.USAGE,
        ) from error
    return int(result) if isinstance(result, int) else int(Exit.OK)


def verb_of(arguments: Sequence[str]) -> list[str]:
    """Return the words of the verb that `arguments` begin with; empty if they begin with none."""
    for verb in VERBS:
        words = verb.words.split()
        if list(arguments[: len(words)]) == words:
            return words
    return []


def build_app(arguments: Sequence[str]) -> "App":
    """Build the command tree: the verb that is called with its function, all others by name and summary only."""
    from cyclopts import App, Group, Parameter

    groups = {heading: Group(heading, sort_key=index) for index, heading in enumerate(HEADINGS)}
    # A flag that is off by default says so by being a flag.
    quiet = Parameter(negative="", show_env_var=False, show_default=lambda value: None if value is False else value)
    app = App(
        name="cuebook",
        help="Run, inspect, replay and fork actor systems whose every change is in a log.",
        version=own_version,
        default_parameter=quiet,
        suppress_keyboard_interrupt=False,
        help_format="plaintext",
    )
    for flag in ("--help", "--version"):
        app[flag].show = False  # the five headings and nothing else
    called, parents = verb_of(arguments), dict[str, App]()
    for index, verb in enumerate(VERBS):
        *above, name = verb.words.split()
        parent = app
        if above:
            if above[0] not in parents:
                summary = GROUP_SUMMARIES[above[0]]
                parents[above[0]] = App(name=above[0], help=summary, group=groups[verb.heading], sort_key=index, version_flags=[])
                app.command(parents[above[0]])
            parent = parents[above[0]]
        group = None if above else groups[verb.heading]
        if called == verb.words.split():
            parent.command(load(verb), name=name, group=group, show=verb.shown, sort_key=index)
        else:
            parent.command(verb.target, name=name, group=group, show=verb.shown, sort_key=index, help=verb.summary)
    return app


def load(verb: Verb) -> Callable[..., Any]:
    """Import and return the function of a verb."""
    module, _, function = verb.target.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


def own_version() -> str:
    """Return the version of the installed distribution."""
    from ops.versions import distribution_version

    return distribution_version("cuebook") or "not installed"


def as_command_error(error: Exception) -> CommandError:
    """Turn an exception that no verb handled into what, why, next; ours by their kind, others as unexpected."""
    from events import errors

    kinds: tuple[tuple[type[Exception], Exit], ...] = (
        (errors.ConfigurationError, Exit.USAGE),
        (errors.CorruptLogError, Exit.VERIFICATION_FAILED),
        (errors.TransientError, Exit.CANNOT_CONNECT),
        (errors.SupersededError, Exit.CONFLICT),
    )
    for kind, code in kinds:
        if isinstance(error, kind):
            return CommandError(str(error), code=code)
    return CommandError(
        f"unexpected {type(error).__name__}",
        why=str(error).partition("\n")[0],
        next_step="the same command with --debug shows where",
    )


if __name__ == "__main__":
    sys.exit(main())
