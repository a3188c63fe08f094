"""List a bucket with Arrow's clients, for keys that obstore refuses to list."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from isospace.storage.gcs_client import gcs_base_url, is_gcs_emulator
from isospace.storage.object_url import ObjectUrl


def list_with_arrow(place: ObjectUrl, prefix: str) -> list[tuple[str, int]]:
    """Return the keys below a prefix of a bucket of S3 or Google, and their sizes in bytes.

    Arrow's client for Azure ends the process (segmentation fault, with version 26) at the same keys.

    Raises
    ------
    OSError
        If the service fails, or Arrow finds no credentials.
    """
    from pyarrow import fs

    selector = fs.FileSelector(f"{place.bucket}/{prefix}".rstrip("/"), recursive=True)
    found: Sequence[Any] = _file_system(place).get_file_info(selector)
    files = [item for item in found if item.type == fs.FileType.File]
    return [(item.path.removeprefix(f"{place.bucket}/"), int(item.size or 0)) for item in files]


def _file_system(place: ObjectUrl) -> Any:
    return _s3() if place.service == "s3" else _gcs()


def _s3() -> Any:
    from pyarrow import fs

    endpoint = _setting("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    parts = urlsplit(endpoint)
    options: dict[str, Any] = {"endpoint_override": parts.netloc, "scheme": parts.scheme} if endpoint else {}
    if _is_set("AWS_SKIP_SIGNATURE"):
        options["anonymous"] = True
    return fs.S3FileSystem(region=_setting("AWS_REGION", "AWS_DEFAULT_REGION") or None, **options)


def _gcs() -> Any:
    from pyarrow import fs

    base = urlsplit(gcs_base_url())
    options: dict[str, Any] = {"endpoint_override": base.netloc, "scheme": base.scheme} if base.netloc else {}
    return fs.GcsFileSystem(anonymous=is_gcs_emulator() or _is_set("GOOGLE_SKIP_SIGNATURE"), **options)


def _is_set(name: str) -> bool:
    return _setting(name).lower() in ("1", "true")


def _setting(*names: str) -> str:
    return next((os.environ[name] for name in names if os.environ.get(name)), "")
