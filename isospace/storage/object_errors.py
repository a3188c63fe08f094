"""Say why an object store failed, and what to do: the client's own messages quote URLs, retries, and XML."""

from __future__ import annotations

from isospace.storage.azure_errors import explain_azure
from isospace.storage.gcs_errors import explain_gcs
from isospace.storage.guard import without_passwords
from isospace.storage.object_url import FORMS, VARIABLES, parse_object_url
from isospace.storage.s3_errors import explain_s3


def explain_object(error: BaseException, url: str) -> str | None:
    """Return the line that tells why an object store failed as a whole; None if one file or request failed.

    Parameters
    ----------
    error
        An exception of obstore.
    url
        URL of the store.
    """
    match parse_object_url(url).service:
        case "s3":
            return explain_s3(error, url)
        case "gcs":
            return explain_gcs(error, url)
        case "azure":
            return explain_azure(error, url)


def explain_settings(error: BaseException, url: str) -> str:
    """Return the message for a client that could not be made from a URL and the settings in the environment.

    Parameters
    ----------
    error
        What obstore raised when it was given the URL.
    url
        URL of the store.
    """
    service = parse_object_url(url).service
    reason = without_passwords(str(error).split("\n", 1)[0]).partition(" error: ")
    said = reason[2] or reason[0]
    if "Account must be specified" in said:
        return (
            f"store {url}: no storage account is named. Set AZURE_STORAGE_ACCOUNT_NAME, or "
            "AZURE_STORAGE_CONNECTION_STRING."
        )
    if service == "s3" or isinstance(error, ValueError) or "URL did not match" in said:
        return f"store {url}: expected {FORMS[service]} ({said}). Correct the URL."
    return (
        f"store {url}: the settings for it cannot be used ({said}). Correct the {VARIABLES[service]} variables, or the "
        "file that one of them names."
    )
