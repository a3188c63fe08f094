"""Where a served encoder is reached, and with which key; nothing of this changes a vector."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from isospace.errors import ConfigError

_KEY_LIKE = re.compile(r"key|token|secret|passw|credential|signature|(^|[^a-z])(sig|code|auth|pwd|sas)([^a-z]|$)", re.I)
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_ENVIRONMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Endpoint:
    """The address of a served encoder, its key's place, and limits.

    Parameters
    ----------
    url
        Base URL: the part before `/embeddings`, `/embed`, `/v2/embed`, or `/models/`.
    key_env, key_file
        Name of the environment variable, or path of the file, that holds the key; at most one of them. The file is read
        again when it changes.
    key_header
        Header that carries the key, such as `api-key`; None is `Authorization: Bearer`, for Google `x-goog-api-key`.
    query
        Names and values to add to every request's URL, such as Azure's `api-version`.
    timeout_seconds
        Longest time for one request.
    deadline_seconds
        Longest time for one batch of texts over all its retries, from its first request.
    query_timeout_seconds
        Longest time for one request of an urgent call; the call as a whole may take twice as long.
    max_concurrency
        Largest number of requests at a time; the client itself finds how many are best.
    requests_per_minute, tokens_per_minute
        Limits that the client observes by itself.

    Raises
    ------
    ConfigError
        If a value is invalid, or the URL or the query may contain a key.
    """

    url: str
    key_env: str | None = None
    key_file: str | None = None
    key_header: str | None = None
    query: tuple[tuple[str, str], ...] = ()
    timeout_seconds: float = 60.0
    deadline_seconds: float = 600.0
    query_timeout_seconds: float = 5.0
    max_concurrency: int = 64
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None

    def __post_init__(self) -> None:
        pairs: Any = self.query.items() if isinstance(self.query, Mapping) else self.query
        object.__setattr__(self, "query", tuple((str(name), str(value)) for name, value in pairs))
        _require_url(self.url)
        _require_harmless([name for name, _ in self.query], "query")
        _require_key_place(self)
        for name in ("timeout_seconds", "deadline_seconds", "query_timeout_seconds", "max_concurrency",
                     "requests_per_minute", "tokens_per_minute"):  # fmt: skip
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name}: {value}; expected more than 0.")

    @property
    def base(self) -> str:
        """The URL without its query and without a slash at its end."""
        parts = urlsplit(self.url)
        return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The names and values of the URL's own query and of `query`."""
        return (*parse_qsl(urlsplit(self.url).query, keep_blank_values=True), *self.query)

    @property
    def host(self) -> str:
        """Scheme, host, and port, for messages."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"


def _require_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ConfigError("url: cannot be read; expected http://HOST[:PORT]/PATH or https://….") from None
    if "@" in parts.netloc:
        # The user and password stay out of the message.
        raise ConfigError(
            f"url: {parts.scheme}://…@{parts.netloc.rpartition('@')[2]} contains a user or a password; expected none. "
            "Put the key into an environment variable, and name it in key_env."
        )
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError(f"url: {url!r}; expected http://HOST[:PORT]/PATH or https://….")
    if parts.fragment:
        raise ConfigError(f"url: has a fragment (#…) after {parts.netloc}; expected none.")
    _require_harmless([name for name, _ in parse_qsl(parts.query, keep_blank_values=True)], "url")


def _require_harmless(names: list[str], where: str) -> None:
    for name in names:
        if _KEY_LIKE.search(name):
            raise ConfigError(
                f"{where}: the parameter {name!r} looks like a key, and URLs are logged; expected none. Put the key "
                "into an environment variable, and name it in key_env."
            )


def _require_key_place(endpoint: Endpoint) -> None:
    if endpoint.key_env is not None and endpoint.key_file is not None:
        raise ConfigError("key_env and key_file: both are set; expected at most one.")
    if endpoint.key_env is not None and not _ENVIRONMENT.fullmatch(endpoint.key_env):
        # What stands here may be the key itself.
        raise ConfigError("key_env: not the name of an environment variable; expected a name such as OPENAI_API_KEY.")
    if endpoint.key_header is not None and not _HEADER.fullmatch(endpoint.key_header):
        raise ConfigError("key_header: not the name of a header; expected a name such as api-key.")
