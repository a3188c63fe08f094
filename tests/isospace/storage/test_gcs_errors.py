from __future__ import annotations

import pytest

from isospace.errors import StoreError
from isospace.storage.gcs_errors import explain_gcs
from isospace.storage.guard import guard
from isospace.storage.object_errors import explain_object

URL = "gs://corpus/prod"
AT = "Generic GCS error: Error performing GET http://user:secret@gcs:9000/corpus?list-type=2 in 9.5ms - "
TOKEN = "Generic GCS error: Error performing POST https://oauth2.googleapis.com/token in 9ms - "
PLACE = "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token"


def answer(status: str, code: str = "") -> str:
    body = f": <?xml version='1.0'?>\n<Error><Code>{code}</Code></Error>" if code else ""
    return f"{AT}Server returned non-2xx status code: {status}{body}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (answer("404 Not Found", "NoSuchBucket"), "there is no bucket corpus"),
        (answer("403 Forbidden", "AccessDenied"), "access denied. Grant these credentials storage.objects.list"),
        (answer("401 Unauthorized"), "the credentials are not valid there (401)"),
        (answer("400 Bad Request", "InvalidSecurity"), "the credentials are not valid there (InvalidSecurity)"),
        (f"{TOKEN}Server returned non-2xx status code: 400 Bad Request", "Google gave no token"),
        (AT + "HTTP error: error sending request", "cannot be reached. Correct GOOGLE_BASE_URL"),
        (f"Generic GCS error: Error performing GET {PLACE} in 2ms", "no credentials for Google Cloud Storage"),
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
    assert explain_gcs(ValueError(answer("500 Internal Server Error", "InternalError")), URL) is None
    assert explain_gcs(FileNotFoundError(answer("404 Not Found", "NoSuchKey")), URL) is None
