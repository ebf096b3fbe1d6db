"""AES-256-GCM for sealed actors, with keys as files outside the log's folder (S29). Needs the extra ``cuebook[sealed]``.

A key is one file of 32 random bytes, named by its id, in a folder that only its owner may read. Keys are made in batches, written and
fsynced together with their folders before the first of them is used: a key is never younger on disk than what it sealed. One is destroyed
by writing over it, fsync, unlink and fsync of the folder; a file system or a disk that keeps old blocks may keep those too, as after any
deletion. Nonces are random: the messages of one stream stay far below the 2^32 per key that NIST SP 800-38D 8.3 allows.
"""

import asyncio
import hashlib
import hmac
import os
from collections import OrderedDict
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from events.clock import Entropy, SystemEntropy
from events.crash_points import CrashPoint, reached
from events.errors import ConfigurationError, CorruptLogError, TransientError, UnreadablePayloadError
from events.folder_sync import sync_folder

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
BATCH: Final = 32
_CACHED: Final = 10_000


class _Key:
    __slots__ = ("cipher", "marks")

    def __init__(self, secret: bytes) -> None:
        self.cipher = AESGCM(secret)
        self.marks = hashlib.sha256(b"cuebook args" + secret).digest()


class AesGcmSealer:
    """Adapter of `events.sealed.sealing.Sealer`. Several processes may share a folder. Not safe for concurrent `fresh_key` from several
    loops."""

    def __init__(self, folder: Path, *, entropy: Entropy | None = None) -> None:
        self.folder = folder
        self._entropy = entropy or SystemEntropy()
        self._pool: list[str] = []
        self._cache: OrderedDict[str, _Key] = OrderedDict()
        self._making = asyncio.Lock()

    async def fresh_key(self) -> str:
        async with self._making:
            if not self._pool:
                try:
                    self._pool = await asyncio.to_thread(self._make_batch)
                except OSError as error:
                    raise TransientError(f"no key can be made in {self.folder}: {error.strerror}", path=str(self.folder)) from error
            return self._pool.pop()

    def _make_batch(self) -> list[str]:
        made: list[str] = []
        folders: set[Path] = set()
        self._private(self.folder)
        for _ in range(BATCH):
            key_id = self._entropy.token_bytes(16).hex()
            path = self._path(key_id)
            if path.parent not in folders:
                folders.add(path.parent)
                self._private(path.parent)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, self._entropy.token_bytes(KEY_BYTES))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            made.append(key_id)
        for folder in folders:
            sync_folder(folder)
        sync_folder(self.folder)
        sync_folder(self.folder.parent)
        return made

    def _private(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_mode & 0o077:
            raise ConfigurationError(f"{folder} holds keys, but others may open it. Run: chmod 700 {folder}", path=str(folder))

    def _path(self, key_id: str) -> Path:
        # A name from a log or a request is never followed out of the folder.
        if len(key_id) != 32 or not all(digit in "0123456789abcdef" for digit in key_id):
            raise UnreadablePayloadError(f"{key_id[:40]!r} is no id of a key", key_id=key_id)
        return self.folder / key_id[:2] / key_id

    def has(self, key_id: str) -> bool:
        try:
            return key_id in self._cache or self._path(key_id).is_file()
        except UnreadablePayloadError:
            return False

    def _key(self, key_id: str) -> _Key:
        found = self._cache.get(key_id)
        if found is None:
            try:
                secret = self._path(key_id).read_bytes()
            except OSError:
                secret = b""
            if len(secret) != KEY_BYTES or not any(secret):
                raise UnreadablePayloadError(f"sealed (key {key_id} not here)", key_id=key_id)
            found = self._cache[key_id] = _Key(secret)
            if len(self._cache) > _CACHED:
                self._cache.popitem(last=False)
        return found

    def seal(self, key_id: str, plain: bytes, bound: bytes) -> bytes:
        nonce = self._entropy.token_bytes(NONCE_BYTES)
        return nonce + self._key(key_id).cipher.encrypt(nonce, plain, bound)

    def unseal(self, key_id: str, sealed: bytes, bound: bytes) -> bytes:
        try:
            return self._key(key_id).cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound)
        except (InvalidTag, ValueError) as error:
            raise CorruptLogError("a ciphertext, or what it is bound to, was changed", key_id=key_id) from error

    def mark(self, key_id: str, text: str) -> str:
        return hmac.new(self._key(key_id).marks, text.encode(), hashlib.sha256).hexdigest()

    def destroy(self, key_id: str) -> None:
        self._cache.pop(key_id, None)
        path = self._path(key_id)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            os.write(descriptor, bytes(KEY_BYTES))
            os.fsync(descriptor)
            reached(CrashPoint.ERASE_KEY_OVERWRITTEN)
        finally:
            os.close(descriptor)
        path.unlink(missing_ok=True)
        sync_folder(path.parent)

    def close(self) -> None:
        """Destroy the keys of the batch that were never used."""
        while self._pool:
            self.destroy(self._pool.pop())
