"""Names of languages by file name, extension or first line. A table, not a guess from content."""

from __future__ import annotations

from pathlib import PurePosixPath

PYTHON = "Python"
BINARY = "Binary"
OTHER = "Other"

_BY_NAME = {
    "makefile": "Make",
    "gnumakefile": "Make",
    "dockerfile": "Dockerfile",
    "containerfile": "Dockerfile",
    "cmakelists.txt": "CMake",
    "license": "Text",
    "licence": "Text",
    "copying": "Text",
    "notice": "Text",
    "authors": "Text",
    "changelog": "Text",
    "readme": "Text",
    "py.typed": "Text",
    ".gitignore": "Git",
    ".gitattributes": "Git",
    ".gitmodules": "Git",
    ".dockerignore": "Dockerfile",
    "pipfile": "TOML",
    "poetry.lock": "TOML",
    "uv.lock": "TOML",
    "cargo.lock": "TOML",
    "gemfile": "Ruby",
    "rakefile": "Ruby",
}

_LANGUAGES_AND_EXTENSIONS = (
    (PYTHON, "py pyw"),
    ("Python stub", "pyi"),
    ("Cython", "pyx pxd pxi"),
    ("Jupyter notebook", "ipynb"),
    ("C", "c h"),
    ("C++", "cc cpp cxx hpp hh hxx"),
    ("C#", "cs"),
    ("CSS", "css scss sass less"),
    ("CSV", "csv tsv"),
    ("Cuda", "cu cuh"),
    ("Dart", "dart"),
    ("Elixir", "ex exs"),
    ("Erlang", "erl hrl"),
    ("Fortran", "f f90 f95 for"),
    ("Go", "go"),
    ("GraphQL", "graphql gql"),
    ("HTML", "html htm xhtml"),
    ("Haskell", "hs"),
    ("INI", "ini cfg conf properties editorconfig"),
    ("JSON", "json jsonl json5 geojson webmanifest"),
    ("Java", "java"),
    ("JavaScript", "js mjs cjs jsx"),
    ("Jinja", "j2 jinja jinja2"),
    ("Julia", "jl"),
    ("Kotlin", "kt kts"),
    ("Lua", "lua"),
    ("Make", "mk mak"),
    ("CMake", "cmake"),
    ("Markdown", "md markdown mdx"),
    ("Nix", "nix"),
    ("Objective-C", "m mm"),
    ("PHP", "php"),
    ("Perl", "pl pm"),
    ("PowerShell", "ps1 psm1"),
    ("Protocol Buffers", "proto"),
    ("R", "r rmd"),
    ("reStructuredText", "rst"),
    ("Ruby", "rb"),
    ("Rust", "rs"),
    ("SQL", "sql"),
    ("SVG", "svg"),
    ("Scala", "scala sc"),
    ("Shell", "sh bash zsh fish"),
    ("Batch", "bat cmd"),
    ("Swift", "swift"),
    ("TOML", "toml"),
    ("TeX", "tex bib sty"),
    ("Terraform", "tf tfvars hcl"),
    ("Text", "txt log in"),
    ("TypeScript", "ts tsx mts cts"),
    ("Vue", "vue"),
    ("Svelte", "svelte"),
    ("XML", "xml xsd xsl xslt plist"),
    ("YAML", "yaml yml"),
    ("Zig", "zig"),
)

_BY_EXTENSION = {extension: language for language, extensions in _LANGUAGES_AND_EXTENSIONS for extension in extensions.split()}

_BY_INTERPRETER = (
    ("python", PYTHON),
    ("pypy", PYTHON),
    ("bash", "Shell"),
    ("zsh", "Shell"),
    ("sh", "Shell"),
    ("node", "JavaScript"),
    ("ruby", "Ruby"),
    ("perl", "Perl"),
    ("php", "PHP"),
)


def language_of(path: str, first_bytes: bytes) -> str:
    """The language of a file.

    Args:
        path: relative posix path; only its last part counts.
        first_bytes: the start of the content; decides for files without a known name (a shebang) and marks binaries.

    Returns:
        A name from the table, `Binary` for content with a NUL byte under an unknown name, else `Other`.
    """
    name = PurePosixPath(path).name.lower()
    if name in _BY_NAME:
        return _BY_NAME[name]
    extension = name.rpartition(".")[2] if "." in name.lstrip(".") else ""
    if extension in _BY_EXTENSION:
        return _BY_EXTENSION[extension]
    if b"\0" in first_bytes:
        return BINARY
    return _language_of_shebang(first_bytes) if not extension and first_bytes.startswith(b"#!") else OTHER


def _language_of_shebang(first_bytes: bytes) -> str:
    words = first_bytes[2:].partition(b"\n")[0].decode("utf-8", "replace").split()
    programs = [word.rpartition("/")[2] for word in words if not word.startswith("-") and "=" not in word]
    if programs[:1] == ["env"]:
        programs = programs[1:]
    if programs:
        for prefix, language in _BY_INTERPRETER:
            if programs[0].startswith(prefix):
                return language
    return OTHER
