"""The key of an endpoint: read where it is kept, sent in a header, and kept out of every message."""

from __future__ import annotations

import base64
import os
import threading
from pathlib import Path
from urllib.parse import quote

from isospace.encoding.served.endpoint import Endpoint
from isospace.encoding.served.model import Protocol
from isospace.errors import ProviderRefusedError

_SHOWN = 300
# A word that shares so many characters in a row with the key is left out of messages.
_SHARED = 6
# Shorter ones are words such as "none" for servers without keys, not secrets.
_SHORTEST = 5


class Key:
    """The key, read again when its file changes. Safe for several threads."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._lock = threading.Lock()
        self._stamp: tuple[int, int, int] | None = None
        self._known: list[str] = []

    def __repr__(self) -> str:
        return f"Key({self.place})"

    @property
    def place(self) -> str:
        """Where the key is kept, in words."""
        if self._endpoint.key_env is not None:
            return f"the environment variable {self._endpoint.key_env}"
        if self._endpoint.key_file is not None:
            return f"the file {self._endpoint.key_file}"
        return "no key"

    @property
    def is_given(self) -> bool:
        """Whether requests carry a key."""
        return self._endpoint.key_env is not None or self._endpoint.key_file is not None

    def headers(self, protocol: Protocol) -> dict[str, str]:
        """Return the header with the key; nothing if the endpoint has none.

        Raises
        ------
        ProviderRefusedError
            If the key is missing, or cannot be sent in a header.
        """
        key = self._read()
        if key is None:
            return {}
        default = "x-goog-api-key" if protocol == "google" and "/publishers/" not in self._endpoint.url else None
        header = self._endpoint.key_header or default
        if header is None or header.lower() == "authorization":
            return {"Authorization": f"Bearer {key}"}
        return {header: key}

    def scrubbed(self, text: str) -> str:
        """Return what a provider said as one short line, without the key and without words that show parts of it."""
        line = " ".join(text.split())
        for key in (known for known in self._known if len(known) >= _SHORTEST):
            for form in {key, quote(key, safe=""), base64.b64encode(key.encode()).decode("ascii").rstrip("=")}:
                line = line.replace(form, "[key]")
            pieces = {key[i : i + _SHARED] for i in range(len(key) - _SHARED + 1)}
            line = " ".join("[key]" if _shows(word, pieces) else word for word in line.split(" "))
        return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"

    def _read(self) -> str | None:
        if self._endpoint.key_env is not None:
            return self._checked(os.environ.get(self._endpoint.key_env, ""))
        if self._endpoint.key_file is None:
            return None
        path = Path(self._endpoint.key_file).expanduser()
        problem = None
        with self._lock:
            try:
                status = path.stat()
                stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
                if stamp == self._stamp and self._known:
                    return self._known[-1]
                text = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                problem = getattr(error, "strerror", None) or "not text"
            else:
                key = self._checked(text)
                self._stamp = stamp
                return key
        raise ProviderRefusedError(f"{self.place}: {problem}; expected a file that holds the key alone.")

    def _checked(self, text: str) -> str:
        key = text.strip()
        if not key:
            raise ProviderRefusedError(
                f"{self.place} is not set or empty; expected the key of {self._endpoint.host}. Set it before the start."
            )
        if not all(33 <= ord(character) <= 126 for character in key):
            raise ProviderRefusedError(
                f"{self.place} holds spaces, line breaks, or characters outside ASCII; expected the key alone."
            )
        if not self._known or self._known[-1] != key:
            # Keys used before are kept, so that a late answer does not show one.
            self._known = [*[known for known in self._known if known != key], key]
        return key


def _shows(word: str, pieces: set[str]) -> bool:
    if "***" in word:
        return True
    return any(word[i : i + _SHARED] in pieces for i in range(len(word) - _SHARED + 1))
