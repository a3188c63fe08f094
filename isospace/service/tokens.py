"""Signed tokens (JSON Web Tokens, RFC 7519): verify them, and read what their bearer may see.

The algorithm follows from the key that the service was given, never from the token (RFC 8725, section 3.1).
"""

from __future__ import annotations

import base64
import contextlib
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isospace.errors import ConfigError, QueryError, require_package
from isospace.search.scope import bind_claims, check_template

_LOG = logging.getLogger(__name__)
# Clocks of two machines differ a little.
_LEEWAY_SECONDS = 30
_SHORTEST_SECRET = 32
_SECRET = re.compile(rb"[A-Za-z0-9+/=_-]+")


@dataclass(frozen=True, slots=True)
class TokenRules:
    """How tokens are verified, and the filter that they are put into.

    Attributes
    ----------
    key
        File with the public key of the issuer in PEM (RSA, elliptic curve, or Ed25519); None with a secret.
    secret
        File with a secret that is shared with the issuer; None with a public key.
    filter
        A filter with claims, such as `tenant == $tenant and group in $groups`.
    audience, issuer
        What `aud` and `iss` have to be; without an audience, tokens with one are refused.
    """

    key: Path | None
    filter: str
    audience: str | None = None
    issuer: str | None = None
    secret: Path | None = None


def token_rules(
    key: Path | None, secret: Path | None, expression: str | None, audience: str | None, issuer: str | None
) -> TokenRules | None:
    """Return the rules of the options of a command; None without a key and a secret.

    Raises
    ------
    ConfigError
        If there is a key without a filter, another option without a key, or both a key and a secret.
    """
    if key is None and secret is None:
        given = {"--token-filter": expression, "--token-audience": audience, "--token-issuer": issuer}
        if names := [name for name, value in given.items() if value is not None]:
            raise ConfigError(
                f"{names[0]}: has no effect without --token-key or --token-secret. Give the key that tokens are signed "
                "with."
            )
        return None
    if key is not None and secret is not None:
        raise ConfigError("--token-key and --token-secret: tokens are signed with one of them. Give that one.")
    if expression is None:
        raise ConfigError(
            "--token-key, --token-secret: tokens need a filter, or every token would show everything. Give "
            "--token-filter, such as 'tenant == $tenant'."
        )
    return TokenRules(key, expression, audience, issuer, secret)


class Tokens:
    """Verifies tokens by fixed rules.

    Raises
    ------
    ConfigError
        If the key cannot be read, or the filter cannot be parsed.
    """

    def __init__(self, rules: TokenRules) -> None:
        require_package("jwt", "--token-key")
        try:
            check_template(rules.filter)
        except QueryError as error:
            raise ConfigError(f"--token-filter: {error}") from error
        self._rules = rules
        if rules.key is not None:
            self._key, self._algorithms = _public_key(rules.key)
        elif rules.secret is not None:
            self._key, self._algorithms = _secret(rules.secret)
        else:
            raise ConfigError("tokens: neither a key nor a secret was given. Give --token-key or --token-secret.")

    def scope_of(self, token: str) -> str | None:
        """Return the filter of a token with its claims; None unless it is signed, meant for this service, and current.

        Raises
        ------
        ScopeError
            If it lacks a claim of the filter.
        """
        claims = self._claims(token)
        return None if claims is None else bind_claims(self._rules.filter, claims)

    def _claims(self, token: str) -> dict[str, Any] | None:
        import jwt

        rules = self._rules
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self._key,
                algorithms=self._algorithms,
                audience=rules.audience,
                issuer=rules.issuer,
                leeway=_LEEWAY_SECONDS,
                options={"require": ["exp"], "verify_aud": True, "verify_iss": rules.issuer is not None},
            )
        except jwt.PyJWTError as error:
            # Which token it was is not logged: it may be valid for another service.
            _LOG.warning("a token was refused: %s", error)
            return None
        return claims


def _public_key(path: Path) -> tuple[Any, list[str]]:
    """Return a public key, and the algorithms that fit it."""
    data = _content(path, "--token-key")
    require_package("cryptography", f"--token-key {path}")
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from cryptography.x509 import load_pem_x509_certificate

    if b"PRIVATE KEY" in data:
        raise ConfigError(f"--token-key {path}: is a private key. Give the public key that belongs to it.")
    try:
        is_certificate = b"BEGIN CERTIFICATE" in data
        key = load_pem_x509_certificate(data).public_key() if is_certificate else load_pem_public_key(data)
    except ValueError as error:
        raise ConfigError(
            f"--token-key {path}: is not a public key or a certificate in PEM, which starts with -----BEGIN ({error}). "
            "Give one; a shared secret goes to --token-secret."
        ) from error
    match key:
        case rsa.RSAPublicKey():
            return key, ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]
        case ec.EllipticCurvePublicKey():
            return key, ["ES256", "ES384", "ES512"]
        case ed25519.Ed25519PublicKey():
            return key, ["EdDSA"]
        case _:
            raise ConfigError(
                f"--token-key {path}: is a {type(key).__name__}; expected a key for RSA, an elliptic curve, or Ed25519."
            )


def _secret(path: Path) -> tuple[Any, list[str]]:
    """Return a shared secret, and the algorithms that fit it; what may be a public key is refused."""
    data = _content(path, "--token-secret")
    if len(data) < _SHORTEST_SECRET or _SECRET.fullmatch(data) is None:
        raise ConfigError(
            f"--token-secret {path}: {len(data)} bytes; expected {_SHORTEST_SECRET} or more, of letters, digits, and "
            "+ / = _ - alone. Make one with `openssl rand -hex 32`; a public key goes to --token-key."
        )
    if _is_public_key(data):
        raise ConfigError(
            f"--token-secret {path}: is a public key, which everybody may have, without its first and last line. Give "
            "it in PEM to --token-key."
        )
    return data, ["HS256", "HS384", "HS512"]


def _is_public_key(data: bytes) -> bool:
    require_package("cryptography", "--token-secret")
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_der_public_key
    from cryptography.x509 import load_der_x509_certificate

    for alphabet in (None, b"-_"):
        for load in (load_der_public_key, load_der_x509_certificate):
            with contextlib.suppress(ValueError, UnsupportedAlgorithm):
                load(base64.b64decode(data + b"=" * (-len(data) % 4), altchars=alphabet))
                return True
    return False


def _content(path: Path, option: str) -> bytes:
    try:
        return path.read_bytes().strip()
    except OSError as error:
        raise ConfigError(
            f"{option} {path}: cannot be read ({error.strerror or error}). Give a file that this user can read."
        ) from error
