"""API keys: read them, compare them, and follow their file when it changes."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import logging
import os
from pathlib import Path

from isospace.errors import ConfigError

KEYS_VARIABLE = "ISOSPACE_API_KEYS"
_SHORTEST = 16
_LOG = logging.getLogger(__name__)


class Keys:
    """The API keys that are valid now; without any, requests need none.

    Attributes
    ----------
    problem
        Why the key file could not be read again, if so: the keys read before remain valid.
    """

    def __init__(self, digests: tuple[bytes, ...], path: Path | None = None) -> None:
        self.digests, self.path, self.problem = digests, path, ""
        self._read = self._seen = _version(path)
        if path is not None:
            # Opening the snapshot may have taken a minute since: a key that was revoked meanwhile must not be valid.
            with contextlib.suppress(ConfigError):
                self.digests = read_keys(path)

    def admitted(self, authorization: str | None) -> bytes | None:
        """Return the SHA-256 of the key in a header `Bearer KEY`, compared in constant time; None if it is not valid.

        Without keys, every request is admitted, with an empty digest.
        """
        if not self.digests:
            return b""
        scheme, _, key = (authorization or "").partition(" ")
        found = digest(key.strip())
        matches = [hmac.compare_digest(found, known) for known in self.digests]
        return found if any(matches) and scheme.lower() == "bearer" else None

    def follow(self) -> None:
        """Read the file again if it has changed, and not since the last call: it may still be being written."""
        version, before = _version(self.path), self._seen
        self._seen = version
        if version == before and version != self._read:
            self.read_again()

    def read_again(self) -> None:
        """Read the file again; if it cannot be read or has no valid keys, keep the ones from before."""
        if self.path is None:
            return
        self._read = _version(self.path)
        try:
            found = read_keys(self.path)
        except ConfigError as error:
            self.problem = str(error)
            _LOG.warning("%s The keys from before (%d) remain valid.", error, len(self.digests))
            return
        added, removed = set(found) - set(self.digests), set(self.digests) - set(found)
        self.digests, self.problem = found, ""
        _LOG.warning("--keys %s: read again; keys added: %d, removed: %d", self.path, len(added), len(removed))


def digest(key: str) -> bytes:
    """Return the SHA-256 of a key, so that all compared values have one length."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def read_keys(path: Path | None) -> tuple[bytes, ...]:
    """Read API keys from a file with one per line, or else, comma-separated, from the environment.

    Raises
    ------
    ConfigError
        If the file cannot be read or a key has fewer than 16 characters.
    """
    if path is not None:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"--keys {path}: cannot be read ({error}). Give a text file with one key per line."
            ) from error
    else:
        lines = os.environ.get(KEYS_VARIABLE, "").split(",")
    keys = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
    if path is not None and not keys:
        raise ConfigError(
            f"--keys {path}: holds no key. Write one key per line, such as the output of `openssl rand -hex 32`."
        )
    if short := [key for key in keys if len(key) < _SHORTEST]:
        place = KEYS_VARIABLE if path is None else f"--keys {path}"
        raise ConfigError(
            f"{place}: an API key has {len(short[0])} characters; expected {_SHORTEST} or more. Make one with "
            "`openssl rand -hex 32`."
        )
    return tuple(digest(key) for key in keys)


def _version(path: Path | None) -> tuple[int, ...]:
    """Return what changes with the content of a file; empty if there is none."""
    try:
        stat = path.stat() if path is not None else None
    except OSError:
        return ()
    return () if stat is None else (stat.st_ino, stat.st_mtime_ns, stat.st_size)
