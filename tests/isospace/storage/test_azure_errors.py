from __future__ import annotations

import pytest

from isospace.errors import StoreError
from isospace.storage.azure_errors import explain_azure
from isospace.storage.guard import guard
from isospace.storage.object_errors import explain_object

URL = "abfss://corpus@mine.dfs.core.windows.net/prod"
AT = "Generic MicrosoftAzure error: Error performing GET http://user:secret@azure:9000/corpus/prod/a in 9.5ms - "
TOKEN = (
    "Generic MicrosoftAzure error: Error performing POST https://login.microsoftonline.com/1/oauth2/v2.0/token in 9ms"
)
PLACE = "http://169.254.169.254/metadata/identity/oauth2/token"
BATCH = "Bulk delete request failed for key prod/a: "


def answer(status: str, code: str = "") -> str:
    body = f": <?xml version='1.0'?>\n<Error>\n  <Code>{code}</Code></Error>" if code else ""
    return f"{AT}Server returned non-2xx status code: {status}{body}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (answer("404 Not Found", "ContainerNotFound"), "there is no container corpus. Correct the name or the account"),
        (f"{BATCH}The specified container does not exist. (code: 404)", "there is no container corpus"),
        (answer("403 Forbidden", "AuthenticationFailed"), "not valid there, or have expired (AuthenticationFailed)"),
        (answer("401 Unauthorized"), "not valid there, or have expired (401)"),
        (answer("403 Forbidden", "AuthorizationPermissionMismatch"), "access denied (AuthorizationPermissionMismatch)"),
        (answer("403 Forbidden"), "access denied. Give these credentials the role Storage Blob Data Contributor"),
        (f"{BATCH}Not authorized (code: 403)", "access denied. Give these credentials"),
        (f"{TOKEN} - Server returned non-2xx status code: 401 Unauthorized: AADSTS7000215", "Azure gave no token"),
        (AT + "HTTP error: error sending request", "cannot be reached. Correct AZURE_STORAGE_ACCOUNT_NAME"),
        (f"Generic MicrosoftAzure error: Error performing GET {PLACE} in 2ms", "no credentials for Azure were found"),
    ],
)
def test_what_concerns_the_whole_store_names_its_cause_and_the_remedy(text: str, message: str) -> None:
    with pytest.raises(StoreError) as raised, guard("a/b", URL, failure=ValueError, explain=explain_object):
        raise ValueError(text)
    assert message in str(raised.value)
    assert URL in str(raised.value)
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)
    assert type(raised.value) is StoreError


def test_other_failures_are_those_of_a_file() -> None:
    assert explain_azure(ValueError(answer("500 Internal Server Error", "InternalError")), URL) is None
    assert explain_azure(FileNotFoundError(answer("404 Not Found", "BlobNotFound")), URL) is None
    assert explain_azure(FileNotFoundError(f"{BATCH}The specified blob does not exist. (code: 404)"), URL) is None
