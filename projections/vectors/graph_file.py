"""Files of graphs: written as a whole, verified as a whole before anybody believes a byte (hnswlib dies of damaged ones).

    magic, 8 bytes | length of the header, 4 bytes big-endian | header, JSON
    ids, int64 little-endian each | a digest of each vector, 8 bytes each | the graph, as its library wrote it
    SHA-256 of everything before it

The vectors themselves stay in the rows of the view; a digest says whether the row still holds the vector that the graph was made of.
"""

import hashlib
import os
import secrets
from array import array
from pathlib import Path
from typing import Final

import msgspec

from events.errors import CuebookError
from events.folder_sync import sync_folder
from projections.vectors.index import Space

FORMAT: Final = 1
SUFFIX: Final = ".graph"
DIGEST_BYTES: Final = 8
_MAGIC: Final = b"CUEGRPH1"
_LENGTH_BYTES: Final = 4
_ID_BYTES: Final = 8
_CHECK_BYTES: Final = 32
_PIECE_BYTES: Final = 2_047
"""For more hashlib gives up the interpreter's lock, and beside a busy event loop waits 5 ms for it: 100,000 times for as many vectors."""


class UnusableGraphError(CuebookError):
    """A file of a graph does not fit the rows that there are. It is made again from them."""

    code = "unusable_graph"


class DamagedGraphError(UnusableGraphError):
    """It is not even what was written."""

    code = "damaged_graph"


class Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a graph was made of.

    Fields:
        space: its index; library, parameters: what made it.
        position: the place in the log up to which its rows were known. count: of rows.
    """

    format: int = FORMAT
    space: Space
    library: str
    parameters: dict[str, int]
    position: int
    count: int


class GraphFile(msgspec.Struct, frozen=True, kw_only=True):
    """The content of one file. ids and digests: of row n of the graph at n."""

    header: Header
    ids: list[int]
    digests: list[bytes]
    graph: bytes


def digest(vector: bytes) -> bytes:
    """A name for `vector` as an event records it."""
    made = hashlib.blake2b(vector[:_PIECE_BYTES], digest_size=DIGEST_BYTES)
    for start in range(_PIECE_BYTES, len(vector), _PIECE_BYTES):
        made.update(vector[start : start + _PIECE_BYTES])
    return made.digest()


def prefix(space: Space) -> str:
    """How the names of the files of one index begin. Hashed: a name of a space need not be fit for a path."""
    return hashlib.sha256(msgspec.json.encode((space.name, space.model, space.dimensions))).hexdigest()[:24]


def files_of(folder: Path, space: Space) -> list[Path]:
    """The files of one index, in the order in which they were written."""
    return sorted(folder.glob(f"{prefix(space)}-*{SUFFIX}"))


def write(folder: Path, content: GraphFile) -> Path:
    """Add a file: under another name, fsync, then renamed. Whoever is killed meanwhile leaves a name behind that `tidy` removes.

    Raises:
        OSError: the disk is full or away; nothing is left behind.
    """
    ids = array("q", content.ids)
    parts = [msgspec.json.encode(content.header), _little(ids), b"".join(content.digests), content.graph]
    body = b"".join([_MAGIC, len(parts[0]).to_bytes(_LENGTH_BYTES, "big"), *parts])
    name = f"{prefix(content.header.space)}-{content.header.position:016d}-{secrets.token_hex(4)}"
    temporary = folder / f"{name}.tmp"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(body)
            handle.write(hashlib.sha256(body).digest())
            handle.flush()
            os.fsync(handle.fileno())
        done = temporary.rename(folder / f"{name}{SUFFIX}")
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(folder)
    return done


def read(path: Path) -> GraphFile:
    """The content of `path`, if every bit of it is as it was written.

    Raises:
        DamagedGraphError: it is not, or cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DamagedGraphError(f"{path.name} cannot be read: {error.strerror}") from error
    body, check = content[:-_CHECK_BYTES], content[-_CHECK_BYTES:]
    if not body.startswith(_MAGIC) or hashlib.sha256(body).digest() != check:
        raise DamagedGraphError(f"{path.name} is not what was written")
    start = len(_MAGIC) + _LENGTH_BYTES
    ids_at = start + int.from_bytes(body[len(_MAGIC) : start], "big")
    try:
        header = msgspec.json.decode(body[start:ids_at], type=Header)
    except msgspec.DecodeError as error:
        raise DamagedGraphError(f"{path.name} is of another format: {error}") from error
    digests_at = ids_at + _ID_BYTES * header.count
    graph_at = digests_at + DIGEST_BYTES * header.count
    if header.format != FORMAT or graph_at > len(body):
        raise DamagedGraphError(f"{path.name} is of another format")
    digests = body[digests_at:graph_at]
    return GraphFile(
        header=header,
        ids=_from_little(body[ids_at:digests_at]),
        digests=[digests[at : at + DIGEST_BYTES] for at in range(0, len(digests), DIGEST_BYTES)],
        graph=body[graph_at:],
    )


def tidy(folder: Path, spaces: list[Space]) -> int:
    """Remove what belongs to no index of `spaces`, and what a crash left half-written. Nobody may be writing. Returns how many."""
    known = {prefix(space) for space in spaces}
    gone = list(folder.glob("*.tmp"))
    gone += [path for path in folder.glob(f"*{SUFFIX}") if path.name.partition("-")[0] not in known]
    for path in gone:
        path.unlink(missing_ok=True)
    return len(gone)


def _little(numbers: "array[int]") -> bytes:
    found = array("q", numbers)
    if _BIG_ENDIAN:
        found.byteswap()
    return found.tobytes()


def _from_little(content: bytes) -> list[int]:
    found = array("q", content)
    if _BIG_ENDIAN:
        found.byteswap()
    return found.tolist()


_BIG_ENDIAN: Final = array("H", [1]).tobytes() == b"\0\1"
