"""Say why Google Cloud Storage failed, and what to do."""

from __future__ import annotations

from isospace.storage.guard import without_passwords
from isospace.storage.object_failure import failed_server, failure_code, is_unreachable

_METADATA = ("metadata.google.internal", "169.254.169.254")
# Where tokens come from; a refusal there concerns the credentials, not the bucket.
_TOKENS = ("oauth2.googleapis.com", "accounts.google.com", "invalid_grant", "invalid_client")
_VARIABLES = "GOOGLE_APPLICATION_CREDENTIALS"


def explain_gcs(error: BaseException, url: str) -> str | None:
    """Return the line that tells why a store on `gs://` failed as a whole; None if one file or request failed.

    Parameters
    ----------
    error
        An exception of obstore.
    url
        URL of the store.
    """
    text = str(error)
    code = failure_code(text)
    bucket = url.partition("://")[2].partition("/")[0]
    endpoint = failed_server(text) or "Google Cloud Storage"
    place = f"store {url} at {without_passwords(endpoint)}"
    if any(host in text for host in _METADATA):
        return (
            f"store {url}: no credentials for Google Cloud Storage were found. Set {_VARIABLES} to the file of a "
            "service account, run `gcloud auth application-default login`, or run on a machine with a service account "
            "that may use the bucket."
        )
    if any(host in text for host in _TOKENS):
        return (
            f"store {url}: Google gave no token for these credentials. Renew them, or correct {_VARIABLES}; the same "
            "command continues from here."
        )
    if code == "NoSuchBucket" or ("404 Not Found" in text and "list request" in text):
        return f"{place}: there is no bucket {bucket}. Correct the name, or create the bucket."
    if "401 Unauthorized" in text or code in ("AuthenticationRequired", "InvalidSecurity"):
        return f"{place}: the credentials are not valid there ({code or '401'}). Renew them, or correct {_VARIABLES}."
    if "403 Forbidden" in text:
        return (
            f"{place}: access denied. Grant these credentials storage.objects.list, .get, .create, and .delete on the "
            f"bucket {bucket}: the role Storage Object User has them."
        )
    if is_unreachable(text):
        return (
            f"{place}: cannot be reached. Correct GOOGLE_BASE_URL or STORAGE_EMULATOR_HOST if one is set, or check the "
            "network."
        )
    return None
