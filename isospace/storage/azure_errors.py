"""Say why Azure Blob Storage failed, and what to do."""

from __future__ import annotations

from isospace.storage.guard import without_passwords
from isospace.storage.object_failure import failed_server, failure_code, is_unreachable

_METADATA = ("169.254.169.254", "/metadata/identity/")
_TOKENS = ("login.microsoftonline", "AADSTS", "/oauth2/")
_NO_CONTAINER = ("ContainerNotFound", "ContainerBeingDeleted", "FilesystemNotFound")
_INVALID = ("AuthenticationFailed", "InvalidAuthenticationInfo", "NoAuthenticationInformation", "AccountIsDisabled")


def explain_azure(error: BaseException, url: str) -> str | None:
    """Return the line that tells why a store on `az://` failed as a whole; None if one file or request failed.

    Parameters
    ----------
    error
        An exception of obstore.
    url
        URL of the store.
    """
    text = str(error)
    code = failure_code(text)
    container = url.partition("://")[2].partition("/")[0].partition("@")[0]
    endpoint = failed_server(text) or "Azure Blob Storage"
    place = f"store {url} at {without_passwords(endpoint)}"
    if any(host in text for host in _METADATA):
        return (
            f"store {url}: no credentials for Azure were found. Set AZURE_STORAGE_ACCOUNT_KEY or "
            "AZURE_STORAGE_SAS_TOKEN, or AZURE_USE_AZURE_CLI=true after `az login`, or run on a machine with a managed "
            "identity that may use the container."
        )
    if any(host in text for host in _TOKENS):
        return (
            f"store {url}: Azure gave no token for these credentials. Renew them, or correct the AZURE_* variables; "
            "the same command continues from here."
        )
    # A deletion is a batch, whose answer has a message but no code.
    if code in _NO_CONTAINER or "specified container does not exist" in text:
        return f"{place}: there is no container {container}. Correct the name or the account, or create the container."
    if code in _INVALID or "401 Unauthorized" in text:
        return (
            f"{place}: the credentials are not valid there, or have expired ({code or '401'}). Correct or renew what "
            "the AZURE_* variables say; the same command continues from here."
        )
    if "403 Forbidden" in text or "(code: 403)" in text:
        return (
            f"{place}: access denied{f' ({code})' if code else ''}. Give these credentials the role Storage Blob Data "
            f"Contributor on the container {container}, or a shared access signature that may read, create, write, "
            "delete, and list."
        )
    if is_unreachable(text):
        return (
            f"{place}: cannot be reached. Correct AZURE_STORAGE_ACCOUNT_NAME or AZURE_STORAGE_ENDPOINT, or check the "
            "network and the server."
        )
    return None
