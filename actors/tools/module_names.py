"""Paths to module names, and names in import statements back to modules of the code base.

A file's name is that under which it is imported when the folder above its topmost package is on `sys.path`; a file in
no package is named by its stem. Two files that would share a name (`examples/a/main.py`, `examples/b/main.py`) are told
apart: the shallowest keeps it, the others get their dotted path, so a name never stands for two files.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import PurePosixPath

import msgspec

from events.memo import memo


class Module(msgspec.Struct, frozen=True, kw_only=True):
    """One importable file of the code base."""

    name: str
    path: str


class _Place(msgspec.Struct, frozen=True, kw_only=True):
    """A way to import a file: with `folder` on the search path, as `name`."""

    path: str
    folder: str
    packaged: bool


class ModuleIndex:
    """Finds the module that an import statement in a given file means."""

    def __init__(self, paths: Iterable[str], package_prefix: str = "") -> None:
        self._paths = sorted(set(paths))
        self._known = frozenset(self._paths)
        self._package_folders = {_folder(path) for path in self._paths if PurePosixPath(path).name == "__init__.py"}
        self._prefix = package_prefix
        self._places: dict[str, list[_Place]] = {}
        self._import_names: dict[str, str] = {}
        for path in self._paths:
            self._register(path)
        self.names = self._unique_names()

    def modules(self) -> list[Module]:
        """Every module, sorted by name."""
        return [Module(name=name, path=path) for path, name in sorted(self.names.items(), key=lambda item: item[1])]

    def find(self, name: str, importer: str) -> str | None:
        """The path of the module that the file `importer` calls `name`; None when it is foreign."""
        candidates = self._places.get(name)
        if not candidates:
            return None
        own = self._search_folder(importer)
        above = [_folder(importer), *_folders_above(_folder(importer))]
        standard = name.partition(".")[0] in sys.stdlib_module_names
        allowed = []
        for place in candidates:
            near = place.folder == own or place.folder in above
            if standard and place.folder != own:
                continue
            if near or (place.packaged and not standard) or place.folder in ("src", "lib"):
                # Nearest first: the importer's own search folder, then the closest folder above it.
                rank = above.index(place.folder) if place.folder in above else len(above)
                allowed.append((place.folder != own, rank, place.folder.count("/"), place.path))
        return min(allowed)[3] if allowed else None

    def find_relative(self, name: str, level: int, importer: str) -> str | None:
        """As `find` for an import with `level` dots, which goes by folders and so needs no names.

        An empty `name` means the package itself. None when the dots lead out of the code base.
        """
        folder = PurePosixPath(_folder(importer)).parts
        if level - 1 > len(folder):
            return None
        parts = [*folder[: len(folder) - (level - 1)], *(part for part in name.split(".") if part)]
        stem = "/".join(parts)
        choices = (f"{stem}/__init__.py" if stem else "__init__.py", f"{stem}.py")
        return next((path for path in choices if path in self._known), None)

    def _search_folder(self, path: str) -> str:
        """The folder above the topmost package of a file; `..` stands for the folder above the root."""
        folder = _folder(path)
        if folder not in self._package_folders:
            return folder
        while folder in self._package_folders:
            if not folder:
                return ".."
            folder = _folder(folder)
        return folder

    def _register(self, path: str) -> None:
        pure = PurePosixPath(path)
        search = self._search_folder(path)
        packaged = _folder(path) in self._package_folders
        parts = [*pure.parts[:-1], *([] if pure.stem == "__init__" else [pure.stem])]
        prefix = self._prefix.split(".") if self._prefix else []
        if search == "..":
            self._add([*prefix, *parts], path, search, packaged)
            self._import_names[path] = ".".join([*prefix, *parts])
            return
        depth = len(PurePosixPath(search).parts) if search else 0
        self._import_names[path] = ".".join(parts[depth:]) or pure.stem
        self._add(parts[depth:], path, search, packaged)
        # Folders without __init__.py are packages too when an ancestor is on the search path (PEP 420).
        for folder in _folders_above(search) if search else []:
            above = len(PurePosixPath(folder).parts) if folder else 0
            self._add(parts[above:], path, folder, packaged)
        if prefix:
            self._add([*prefix, *parts], path, "..", True)

    def _add(self, parts: list[str], path: str, folder: str, packaged: bool) -> None:
        if parts and all(part.isidentifier() for part in parts):
            self._places.setdefault(".".join(parts), []).append(_Place(path=path, folder=folder, packaged=packaged))

    def _unique_names(self) -> dict[str, str]:
        names: dict[str, str] = {}
        taken: set[str] = set()
        for path in sorted(self._paths, key=lambda p: (p.count("/"), p)):
            pure = PurePosixPath(path)
            dotted = ".".join([*pure.parts[:-1], pure.stem])
            name = next((n for n in (self._import_names[path], dotted, path) if n not in taken), path)
            names[path] = name
            taken.add(name)
        return names


@memo("folders of paths", 16_384)
def _folder(path: str) -> str:
    parent = str(PurePosixPath(path).parent)
    return "" if parent == "." else parent


def _folders_above(folder: str) -> list[str]:
    """Nearest first, ending with the root (`""`) and the folder above it (`..`)."""
    above = []
    while folder:
        folder = _folder(folder)
        above.append(folder)
    return [*above, ".."]
