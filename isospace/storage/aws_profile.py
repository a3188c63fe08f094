"""Credentials from the files of AWS (profiles, single sign-on, assumed roles), which obstore does not read."""

from __future__ import annotations

import configparser
import os
from pathlib import Path
from typing import Any

from isospace.errors import ConfigError

# obstore reads these itself; as with the tools of AWS, they win over the files.
_READ_BY_OBSTORE = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
)
_KEYS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"


def profile_credentials() -> Any:
    """Return a credential provider for obstore, or None if it can do without the files.

    The profile is that of `AWS_PROFILE`, or `default` if a file has one.

    Raises
    ------
    ConfigError
        If a profile should be used, but boto3 is not installed, or the profile does not exist or has no credentials.
    """
    if any(os.environ.get(name) for name in _READ_BY_OBSTORE):
        return None
    profile = os.environ.get("AWS_PROFILE") or ("default" if _has_default() else None)
    if profile is None:
        return None
    try:
        import boto3
        from botocore.exceptions import BotoCoreError
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"AWS profile {profile!r}: reading it needs boto3, which is not installed. Run `pip install "
            f"'isospace[aws]'`, or {_KEYS}."
        ) from error
    try:
        return Boto3CredentialProvider(boto3.Session(profile_name=profile))
    except (BotoCoreError, ValueError) as error:
        # boto3 returns no credentials, and obstore says so with a ValueError.
        reason = "it has no credentials" if isinstance(error, ValueError) else str(error)
        raise ConfigError(f"AWS profile {profile!r}: {reason}. Correct {_files()[0]}, or {_KEYS}.") from error


def _files() -> tuple[Path, Path]:
    credentials = os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials"
    config = os.environ.get("AWS_CONFIG_FILE") or "~/.aws/config"
    return Path(os.path.expanduser(credentials)), Path(os.path.expanduser(config))  # noqa: PTH111


def _has_default() -> bool:
    """Return whether the default profile says how to get credentials; a file may set no more than the region."""
    for path in _files():
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError, OSError):
            continue
        keys = set(parser["default"]) if parser.has_section("default") else set()
        if keys & {"aws_access_key_id", "credential_process", "role_arn", "sso_session", "sso_start_url"}:
            return True
    return False
