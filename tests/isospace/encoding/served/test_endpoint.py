from typing import Any

import pytest

from isospace.encoding.served.endpoint import Endpoint
from isospace.errors import ConfigError

URL = "https://api.example.com/v1"


def test_parts_of_the_address() -> None:
    endpoint = Endpoint(f"{URL}/?region=eu", query={"api-version": "2024-10-21"})  # type: ignore[arg-type]
    assert endpoint.base == URL
    assert endpoint.pairs == (("region", "eu"), ("api-version", "2024-10-21"))
    assert endpoint.host == "https://api.example.com"


@pytest.mark.parametrize(
    "name", ["key", "api_key", "apiKey", "subscription-key", "access_token", "sig", "code", "X-Signature", "secret"]
)
def test_addresses_with_keys_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=name) as caught:
        Endpoint(f"{URL}?{name}=hidden-value")
    assert "hidden-value" not in str(caught.value)
    with pytest.raises(ConfigError, match=name) as caught:
        Endpoint(URL, query=((name, "hidden-value"),))
    assert "hidden-value" not in str(caught.value)


def test_addresses_with_passwords_are_refused_without_showing_them() -> None:
    with pytest.raises(ConfigError, match=r"api\.example\.com contains a user or a password") as caught:
        Endpoint("https://me:hidden@api.example.com/v1")
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"url": "api.example.com"}, "expected http://HOST"),
        ({"url": "ftp://api.example.com"}, "expected http://HOST"),
        ({"url": "http://host:port/"}, "cannot be read"),
        ({"url": f"{URL}#x"}, "fragment"),
        ({"key_env": "A", "key_file": "b"}, "both are set"),
        ({"key_header": "api key"}, "key_header"),
        ({"timeout_seconds": 0}, "timeout_seconds: 0; expected more than 0"),
        ({"deadline_seconds": -1}, "deadline_seconds"),
        ({"max_concurrency": 0}, "max_concurrency"),
        ({"requests_per_minute": 0}, "requests_per_minute"),
        ({"tokens_per_minute": float("nan")}, "tokens_per_minute"),
    ],
)
def test_invalid_values_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Endpoint(**{"url": URL, **changes})


def test_a_key_in_place_of_a_variables_name_is_not_shown() -> None:
    with pytest.raises(ConfigError, match="not the name of an environment variable") as caught:
        Endpoint(URL, key_env="sk-proj-1234567890")
    assert "sk-proj" not in str(caught.value)
