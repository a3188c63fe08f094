"""Signed tokens (JSON Web Tokens, RFC 7519): verify them, and read what their bearer may see.

The algorithm follows from the key that the service was given, never from the token (RFC 8725, section 3.1).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isospace.errors import ConfigError, QueryError, require_package
from isospace.search.scope import bind_claims, check_template

_LOG = logging.getLogger(__name__)
# Clocks of two machines differ a little.
_LEEWAY_SECONDS = 30
_SHORTEST_SECRET = 32


@dataclass(frozen=True, slots=True)
class TokenRules:
    """How tokens are verified, and the filter that they are put into.

    Attributes
    ----------
    key
        File with the public key of the issuer in PEM (RSA, elliptic curve, or Ed25519), or with a shared secret of 32
        bytes or more.
    filter
        A filter with claims, such as `tenant == $tenant and group in $groups`.
    audience, issuer
        What `aud` and `iss` have to be; without an audience, tokens with one are refused.
    """

    key: Path
    filter: str
    audience: str | None = None
    issuer: str | None = None


def token_rules(
    key: Path | None, expression: str | None, audience: str | None, issuer: str | None
) -> TokenRules | None:
    """Return the rules of the options of a command; None without a key.

    Raises
    ------
    ConfigError
        If there is a key without a filter, or another option without a key.
    """
    if key is None:
        given = {"--token-filter": expression, "--token-audience": audience, "--token-issuer": issuer}
        if names := [name for name, value in given.items() if value is not None]:
            raise ConfigError(
                f"{names[0]}: has no effect without --token-key FILE. Give the key that tokens are signed with."
            )
        return None
    if expression is None:
        raise ConfigError(
            "--token-key: tokens need a filter, or every token would show everything. Give --token-filter, such as "
            "'tenant == $tenant'."
        )
    return TokenRules(key, expression, audience, issuer)


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
        self._key, self._algorithms = _read_key(rules.key)

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
            _LOG.info("a token was refused: %s", error)
            return None
        return claims


def _read_key(path: Path) -> tuple[Any, list[str]]:
    """Return the key, and the algorithms that fit it."""
    try:
        data = path.read_bytes().strip()
    except OSError as error:
        raise ConfigError(
            f"--token-key {path}: cannot be read ({error.strerror or error}). Give a file with the public key of the "
            "issuer in PEM, or with a secret."
        ) from error
    if b"PRIVATE KEY" in data:
        raise ConfigError(f"--token-key {path}: is a private key. Give the public key that belongs to it.")
    if b"BEGIN" not in data:
        if len(data) < _SHORTEST_SECRET:
            raise ConfigError(
                f"--token-key {path}: the secret has {len(data)} bytes; expected {_SHORTEST_SECRET} or more. Make one "
                "with `openssl rand -hex 32`."
            )
        return data, ["HS256", "HS384", "HS512"]
    require_package("cryptography", f"--token-key {path}")
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from cryptography.x509 import load_pem_x509_certificate

    try:
        is_certificate = b"BEGIN CERTIFICATE" in data
        key = load_pem_x509_certificate(data).public_key() if is_certificate else load_pem_public_key(data)
    except ValueError as error:
        raise ConfigError(f"--token-key {path}: is not a public key in PEM ({error}).") from error
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
