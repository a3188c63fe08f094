"""A client for S3, and for services with its API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isospace.storage.aws_profile import profile_credentials
from isospace.storage.server_url import options_for, server_url

if TYPE_CHECKING:
    from obstore.store import S3Store


def s3_client(url: str) -> S3Store:
    """Return an obstore client for `s3://bucket/prefix`.

    Credentials, region, and endpoint come from the standard AWS_* environment variables, and credentials also from a
    profile in the files of AWS.

    Raises
    ------
    ConfigError
        If the endpoint is no URL, or a profile cannot be used.
    """
    from obstore.store import S3Store

    endpoint = server_url("AWS_ENDPOINT_URL", example="https://minio.example.org:9000")
    provider = profile_credentials()
    return S3Store.from_url(url, client_options=options_for(endpoint), credential_provider=provider)
