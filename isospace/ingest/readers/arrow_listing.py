"""List a bucket with Arrow's clients, for keys that obstore refuses to list."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from isospace.storage.azure_client import EMULATOR_DEFAULT, EMULATOR_URL, ENDPOINTS, azure_settings
from isospace.storage.gcs_client import gcs_base_url, is_gcs_emulator
from isospace.storage.object_url import ObjectUrl

# The same for every emulator: https://learn.microsoft.com/en-us/azure/storage/common/storage-use-azurite.
_EMULATOR_ACCOUNT = "devstoreaccount1"
_EMULATOR_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_KEYS = ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_MASTER_KEY")
_SIGNATURES = ("AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_KEY")


def list_with_arrow(place: ObjectUrl, prefix: str) -> list[tuple[str, int]]:
    """Return the keys below a prefix of a bucket, and their sizes in bytes.

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
    match place.service:
        case "s3":
            return _s3()
        case "gcs":
            return _gcs()
        case "azure":
            return _azure(place)


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


def _azure(place: ObjectUrl) -> Any:
    from pyarrow import fs

    settings = azure_settings(place.root)
    emulated = bool(settings.get("use_emulator")) or _is_set("AZURE_STORAGE_USE_EMULATOR")
    account = settings.get("account_name") or (_EMULATOR_ACCOUNT if emulated else "")
    endpoint = settings.get("endpoint") or _setting(*ENDPOINTS)
    key = settings.get("account_key") or _setting(*_KEYS)
    if emulated:
        endpoint, key = _setting(EMULATOR_URL) or EMULATOR_DEFAULT, key or _EMULATOR_KEY
    signature = settings.get("sas_key") or _setting(*_SIGNATURES)
    options = _azure_authorities(account, endpoint)
    if key:
        options["account_key"] = key
    elif signature:
        options["sas_token"] = f"?{signature.removeprefix('?')}"
    return fs.AzureFileSystem(account, **options)


def _azure_authorities(account: str, endpoint: str) -> dict[str, str]:
    """Return where Arrow finds an account: it puts the account before an authority that begins with a dot."""
    if not endpoint:
        return {}
    parts = urlsplit(endpoint)
    authority = parts.netloc.removeprefix(account)
    blob = authority if authority.startswith(".") else parts.netloc
    return {
        "blob_storage_authority": blob,
        "blob_storage_scheme": parts.scheme,
        "dfs_storage_authority": blob.replace(".blob.", ".dfs."),
        "dfs_storage_scheme": parts.scheme,
    }


def _is_set(name: str) -> bool:
    return _setting(name).lower() in ("1", "true")


def _setting(*names: str) -> str:
    return next((os.environ[name] for name in names if os.environ.get(name)), "")
