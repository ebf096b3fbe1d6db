"""Where code comes from (S39): our five packages from this distribution, an app from the current folder at last.

`events` and `ops` are generic names, so a file of that name in somebody's folder must never be taken for ours, and ours
must not keep a user from having one.
"""

import importlib
import importlib.util
import sys
from pathlib import Path

from ops.exits import StartError

PACKAGES = ("events", "actors", "runtime", "projections", "ops")
ROOT = Path(__file__).resolve().parent.parent


def check_packages(packages: tuple[str, ...] = PACKAGES) -> None:
    """Raise StartError if one of our packages would be imported from somewhere else, naming that file.

    Looks without importing, so that a shadowing file never runs. A package counts as ours if it lies beside the `ops`
    that is running: true in a checkout, in an editable install and in an installed wheel.
    """
    for name in packages:
        found = importlib.util.find_spec(name)
        if found is None:
            raise StartError(
                f"the package {name} is missing",
                why=f"it should lie beside {ROOT / 'ops'}",
                next_step="install cuebook again",
            )
        origin = Path(found.origin).resolve() if found.origin else None
        if origin is not None and origin == ROOT / name / "__init__.py":
            continue
        where = origin or next(iter(found.submodule_search_locations or ["?"]))
        raise StartError(
            f"{where} takes the place of Cuebook's own package {name}",
            why="it comes earlier on Python's search path",
            next_step="unset PYTHONPATH, or take that folder out of it",
        )


def append_current_folder() -> None:
    """Make modules of the current folder importable, after everything else: they can add names, never replace ours."""
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)


def load_object(spec: str) -> object:
    """Import what `MODULE:OBJECT` names, with the current folder last on the search path.

    Raises:
        StartError: the text has another form, or module or object do not exist. An exception raised inside the
            module while it is imported is the app author's and passes through.
    """
    module_name, _, path = spec.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), *path.split("."))):
        raise StartError(f"{spec!r} does not name an app", why="the form is MODULE:OBJECT", next_step="for example --app bank:app")
    append_current_folder()
    try:
        found: object = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise  # the module exists; something it imports does not
        raise StartError(
            f"there is no module {module_name}",
            why=f"looked on Python's search path and, last, in {Path.cwd()}",
            next_step="change to the folder that holds it, or install it",
        ) from error
    for part in path.split("."):
        if not hasattr(found, part):
            raise StartError(f"{module_name} has no {path}", why=f"--app {spec} names it")
        found = getattr(found, part)
    return found
