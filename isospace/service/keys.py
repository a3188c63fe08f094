"""API keys: read them, compare them, and follow their file when it changes."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from isospace.errors import ConfigError, QueryError
from isospace.search.scope import check_template, claims_in
from isospace.service.tokens import Tokens

KEYS_VARIABLE = "ISOSPACE_API_KEYS"
_SHORTEST = 16
_FILTER = "filter:"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Access:
    """Who may send requests, and what is shown to them.

    Attributes
    ----------
    name
        What the access log calls them: the first 8 digits of the SHA-256 of a key, or `token`; empty without keys.
    scope
        A filter that every search has to pass; None if everything may be seen.
    """

    name: str = ""
    scope: str | None = None


class Keys:
    """The API keys that are valid now, and the rules for tokens; without any, requests need none.

    Attributes
    ----------
    known
        By the SHA-256 of a key, the filter that it carries, if any.
    problem
        Why the key file could not be read again, if so: the keys read before remain valid.
    """

    def __init__(
        self, known: Mapping[bytes, str | None], path: Path | None = None, tokens: Tokens | None = None
    ) -> None:
        self.known, self.path, self.tokens, self.problem = dict(known), path, tokens, ""
        self._read = self._seen = _version(path)
        if path is not None:
            # Opening the snapshot may have taken a minute since: a key that was revoked meanwhile must not be valid.
            with contextlib.suppress(ConfigError):
                self.known = read_keys(path, had_filters=self._has_filters)

    @property
    def is_open(self) -> bool:
        """Whether requests need no key."""
        return not self.known and self.tokens is None

    @property
    def _has_filters(self) -> bool:
        return any(scope is not None for scope in self.known.values())

    def admitted(self, authorization: str | None) -> Access | None:
        """Return whom a header `Bearer KEY` admits, compared in constant time; None if it is not valid.

        Without keys, every request is admitted.

        Raises
        ------
        ScopeError
            If a valid token lacks a claim of the filter.
        """
        if self.is_open:
            return Access()
        scheme, _, key = (authorization or "").partition(" ")
        key = key.strip()
        found = digest(key)
        matches = [known for known in self.known if hmac.compare_digest(found, known)]
        if scheme.lower() != "bearer":
            return None
        if matches:
            return Access(found.hex()[:8], self.known[matches[0]])
        scope = self.tokens.scope_of(key) if self.tokens is not None else None
        return None if scope is None else Access("token", scope)

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
            found = read_keys(self.path, had_filters=self._has_filters)
        except ConfigError as error:
            self.problem = str(error)
            _LOG.warning("%s The keys from before (%d) remain valid.", error, len(self.known))
            return
        added, removed = set(found) - set(self.known), set(self.known) - set(found)
        changed = sum(found[key] != self.known[key] for key in set(found) & set(self.known))
        self.known, self.problem = found, ""
        _LOG.warning(
            "--keys %s: read again; keys added: %d, removed: %d, with another filter: %d",
            self.path,
            len(added),
            len(removed),
            changed,
        )


def digest(key: str) -> bytes:
    """Return the SHA-256 of a key, so that all compared values have one length."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def read_keys(path: Path | None, *, had_filters: bool = False) -> dict[bytes, str | None]:
    """Read API keys from a file with one per line, or else, comma-separated, from the environment.

    In a file, a key may be followed by `filter:` and the filter that every search with this key has to pass. Such a
    file must end with a line break, and so must one that had filters before.

    Returns
    -------
    dict
        By the SHA-256 of a key, its filter, or None.

    Raises
    ------
    ConfigError
        If the file cannot be read, a key has fewer than 16 characters, or a filter cannot be parsed.
    """
    if path is not None:
        try:
            content = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"--keys {path}: cannot be read ({error}). Give a text file with one key per line."
            ) from error
        # Other characters that end a line for Python may stand in a filter.
        lines = content.split("\n")
    else:
        content, lines = "", os.environ.get(KEYS_VARIABLE, "").split(",")
    entries = [_entry(line, path) for line in lines if line.strip() and not line.strip().startswith("#")]
    if path is not None and not entries:
        raise ConfigError(
            f"--keys {path}: holds no key. Write one key per line, such as the output of `openssl rand -hex 32`."
        )
    has_filters = had_filters or any(scope is not None for _, scope in entries)
    if has_filters and path is not None and not content.endswith("\n"):
        raise ConfigError(
            f"--keys {path}: its last line has no line break, and may be half of a line that is being written: a key "
            "would show more than it may. End the file with one; write a new file, and rename it."
        )
    known: dict[bytes, str | None] = {}
    for key, scope in entries:
        if len(key) < _SHORTEST:
            place = KEYS_VARIABLE if path is None else f"--keys {path}"
            raise ConfigError(
                f"{place}: an API key has {len(key)} characters; expected {_SHORTEST} or more. Make one with "
                "`openssl rand -hex 32`."
            )
        if known.setdefault(digest(key), scope) != scope:
            raise ConfigError(f"--keys {path}: a key has two lines with different filters. Give each user a key.")
    return known


def _entry(line: str, path: Path | None) -> tuple[str, str | None]:
    """Return the key of a line, and its filter."""
    if path is None:
        if _FILTER in line:
            raise ConfigError(f"{KEYS_VARIABLE}: a key contains `{_FILTER}`. Filters need a file: give --keys FILE.")
        return line.strip(), None
    key, *rest = line.strip().split(None, 1)
    if _FILTER in key:
        raise ConfigError(
            f"--keys {path}: a key contains `{_FILTER}`. Write a filter in the line of its key, after a space."
        )
    if not rest:
        return key, None
    if not rest[0].startswith(_FILTER):
        raise ConfigError(
            f"--keys {path}: a line has more than a key. Write `{_FILTER}` and a filter behind a key, or a comment in "
            "a line of its own that starts with #."
        )
    scope = rest[0].removeprefix(_FILTER).strip()
    try:
        if claims_in(scope):
            raise QueryError("a claim such as $tenant needs a token")
        check_template(scope)
    except QueryError as error:
        raise ConfigError(f"--keys {path}: {error}") from error
    return key, scope


def _version(path: Path | None) -> tuple[int, ...]:
    """Return what changes with the content of a file; empty if there is none."""
    try:
        stat = path.stat() if path is not None else None
    except OSError:
        return ()
    return () if stat is None else (stat.st_ino, stat.st_mtime_ns, stat.st_size)
