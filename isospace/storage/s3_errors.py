"""Say why S3 failed, and what to do: the client's own messages quote URLs, retries, and XML."""

from __future__ import annotations

import os

from isospace.storage.guard import without_passwords
from isospace.storage.object_failure import failed_server, failure_code, is_unreachable

# Services of cloud machines that hand out credentials; the client asks them last.
_METADATA = ("169.254.169.254", "169.254.170.2", "169.254.170.23", "[fd00:ec2::254]")
_KEYS = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidClientTokenId", "AuthFailure")
_EXPIRED = ("ExpiredToken", "RequestExpired", "InvalidToken")


def explain_s3(error: BaseException, url: str) -> str | None:
    """Return the line that tells why a store on S3 failed as a whole; None if one file or request failed.

    Parameters
    ----------
    error
        An exception of obstore.
    url
        URL of the store.
    """
    text = str(error)
    code = failure_code(text)
    bucket = url.removeprefix("s3://").partition("/")[0]
    endpoint = failed_server(text) or os.environ.get("AWS_ENDPOINT_URL", "AWS")
    place = f"store {url} at {without_passwords(endpoint)}"
    if any(host in text for host in _METADATA):
        return (
            f"store {url}: no credentials for S3 were found. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and "
            "AWS_ENDPOINT_URL unless it is AWS), or run on a machine with a role that may use the bucket."
        )
    if code == "NoSuchBucket" or ("404 Not Found" in text and "list request" in text):
        return f"{place}: there is no bucket {bucket}. Correct the name or AWS_ENDPOINT_URL, or create the bucket."
    if code in _EXPIRED:
        return f"{place}: the credentials have expired ({code}). Renew them; the same command continues from here."
    if code in _KEYS or "401 Unauthorized" in text:
        return (
            f"{place}: the credentials are not valid there ({code or '401'}). Correct the AWS_* variables or profile."
        )
    if code in ("PermanentRedirect", "AuthorizationHeaderMalformed") or "301 Moved" in text:
        return f"{place}: the bucket {bucket} is in another region than AWS_REGION says. Correct AWS_REGION."
    if "403 Forbidden" in text or code in ("AccessDenied", "AllAccessDisabled"):
        return (
            f"{place}: access denied. Allow these credentials s3:ListBucket on the bucket {bucket}, and s3:GetObject, "
            "s3:PutObject, and s3:DeleteObject below the prefix."
        )
    if is_unreachable(text):
        return f"{place}: cannot be reached. Correct AWS_ENDPOINT_URL, or check the network and the server."
    return None
