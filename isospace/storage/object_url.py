"""The URLs of object stores: `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Literal

from isospace.errors import ConfigError

Service = Literal["s3", "gcs", "azure"]

EXPECTED = "s3://bucket/prefix, gs://bucket/prefix, or az://container/prefix"
_SERVICES: dict[str, Service] = {"s3": "s3", "gs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure"}
FORMS = {"s3": "s3://bucket/prefix", "gcs": "gs://bucket/prefix", "azure": "az://container/prefix"}
VARIABLES = {"s3": "AWS_*", "gcs": "GOOGLE_*", "azure": "AZURE_*"}
_URL = re.compile(r"(s3|gs|az|abfss?)://")
# abfss://container@account.dfs.core.windows.net, as Hadoop and Spark write it: neither part is a secret.
_CONTAINER_AND_HOST = re.compile(r"[a-z0-9$-]+@[a-z0-9.-]+", re.IGNORECASE)
# What signs a URL: a shared access signature of Azure, and signed URLs of S3 and Google.
_SIGNED = re.compile(r"[?&](sig|(x-amz-|x-goog-)?(signature|credential)|x-amz-security-token)=", re.IGNORECASE)
_ACCOUNT = "AZURE_STORAGE_ACCOUNT_NAME"


@dataclass(frozen=True, slots=True)
class ObjectUrl:
    """A URL of an object store, in its parts.

    Attributes
    ----------
    root
        The URL of the whole bucket or container.
    account
        The storage account of Azure, if the URL or the environment names one; otherwise empty.
    bucket
        The bucket or container.
    prefix
        What follows the bucket and its slash, as it is written.
    """

    service: Service
    root: str
    account: str
    bucket: str
    prefix: str

    def is_in_bucket_of(self, other: ObjectUrl) -> bool:
        """Return whether both are in one bucket, however it is spelled; unknown accounts count as equal."""
        accounts = {self.account, other.account} - {""}
        return (self.service, self.bucket) == (other.service, other.bucket) and len(accounts) < 2


def is_object_url(url: str) -> bool:
    """Return whether a store or a source is in an object store; a local path is not."""
    return _URL.match(url) is not None


def parse_object_url(url: str) -> ObjectUrl:
    """Take the URL of an object store apart.

    Raises
    ------
    ConfigError
        If it has another form, or contains credentials, which the message does not repeat.
    """
    scheme, _, rest = url.partition("://")
    service = _SERVICES.get(scheme)
    if service is None:
        raise ConfigError(f"{shown_url(url)}: unknown scheme. Expected {EXPECTED}.")
    place, _, prefix = rest.partition("/")
    form, credentials = FORMS[service], f"Put credentials into the {VARIABLES[service]} variables."
    is_hadoop = scheme.startswith("abfs") and _CONTAINER_AND_HOST.fullmatch(place)
    if "@" in place and not is_hadoop:
        raise ConfigError(f"store {scheme}://…@…: expected {form}. {credentials}")
    if _SIGNED.search(url):
        raise ConfigError(f"store {shown_url(url)}: the URL is signed; expected {form}. {credentials}")
    if not place:
        raise ConfigError(f"store {url}: names no bucket; expected {form}.")
    bucket, _, host = place.partition("@")
    account = ""
    if service == "azure":
        account = (host.partition(".")[0] or os.environ.get(_ACCOUNT, "")).lower()
    return ObjectUrl(service, f"{scheme}://{place}", account, bucket, prefix)


def shown_url(url: str) -> str:
    """Return a URL without what may be secret in it: user, password, and query."""
    scheme, _, rest = url.partition("://")
    place, slash, path = rest.split("?", 1)[0].partition("/")
    return f"{scheme}://{place.rpartition('@')[2]}{slash}{path}"[:200]
