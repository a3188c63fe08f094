from __future__ import annotations

import pytest

from isospace.errors import NotFoundError, StoreError
from isospace.storage.guard import guard
from isospace.storage.s3_errors import explain_s3

URL = "s3://corpus/prod"
AT = "Generic S3 error: Error performing GET http://user:secret@minio:9000/corpus?list-type=2 in 9.5ms - "


def answer(status: str, code: str = "") -> str:
    body = f': <?xml version="1.0"?>\n<Error><Code>{code}</Code></Error>' if code else ""
    return f"{AT}Server returned non-2xx status code: {status}{body}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (answer("404 Not Found", "NoSuchBucket"), "there is no bucket corpus"),
        (answer("403 Forbidden", "AccessDenied"), "access denied. Allow these credentials s3:ListBucket on the bucket"),
        (answer("403 Forbidden"), "access denied"),
        (answer("403 Forbidden", "InvalidAccessKeyId"), "the credentials are not valid there (InvalidAccessKeyId)"),
        (answer("403 Forbidden", "SignatureDoesNotMatch"), "the credentials are not valid there"),
        (answer("400 Bad Request", "ExpiredToken"), "the credentials have expired (ExpiredToken). Renew them"),
        (answer("301 Moved Permanently", "PermanentRedirect"), "is in another region than AWS_REGION says"),
        (AT + "HTTP error: error sending request", "cannot be reached. Correct AWS_ENDPOINT_URL"),
        (
            "Generic S3 error: Error performing PUT http://169.254.169.254/latest/api/token in 2.6ms",
            "no credentials for S3 were found. Set AWS_ACCESS_KEY_ID",
        ),
    ],
)
def test_what_concerns_the_whole_store_names_its_cause_and_the_remedy(text: str, message: str) -> None:
    with pytest.raises(StoreError) as raised, guard("a/b", URL, failure=ValueError, explain=explain_s3):
        raise ValueError(text)
    assert message in str(raised.value)
    assert URL in str(raised.value)
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)
    assert type(raised.value) is StoreError


def test_a_file_that_does_not_exist_is_no_problem_of_the_store() -> None:
    missing = FileNotFoundError(answer("404 Not Found", "NoSuchKey"))
    assert explain_s3(missing, URL) is None
    with pytest.raises(NotFoundError), guard("a/b", URL, explain=explain_s3):
        raise missing
    with pytest.raises(StoreError, match="there is no bucket"), guard("a/b", URL, explain=explain_s3):
        raise FileNotFoundError(answer("404 Not Found", "NoSuchBucket"))


def test_other_failures_name_the_file() -> None:
    error = ValueError(answer("500 Internal Server Error", "InternalError"))
    assert explain_s3(error, URL) is None
    named = pytest.raises(StoreError, match=r"^a/b: the store s3://corpus/prod failed")
    with named, guard("a/b", URL, failure=ValueError, explain=explain_s3):
        raise error
