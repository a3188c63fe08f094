from __future__ import annotations

import pytest

from isospace.errors import ConfigError
from isospace.operations.export.target import parse_target


@pytest.mark.parametrize(
    ("url", "system", "place", "name"),
    [
        ("faiss:/exports/a#b", "faiss", "/exports/a#b", ""),
        ("lancedb:s3://bucket/x#docs", "lancedb", "s3://bucket/x", "docs"),
        ("qdrant:http://host:6333#docs", "qdrant", "http://host:6333", "docs"),
        ("qdrant:a#b#docs", "qdrant", "a#b", "docs"),
        ("postgresql://me@host/db#s.docs", "postgresql", "postgresql://me@host/db", "s.docs"),
        ("postgres://me@host/db#docs", "postgresql", "postgres://me@host/db", "docs"),
    ],
)
def test_a_url_names_system_place_and_table(url: str, system: str, place: str, name: str) -> None:
    target = parse_target(url)
    assert (target.system, target.place, target.name) == (system, place, name)
    assert str(target) == url


@pytest.mark.parametrize(
    "url", ["", "docs", "mysql://me@host/db#t", "faiss:", "lancedb:folder", "qdrant:#t", "lancedb:f#"]
)
def test_a_url_that_lacks_something_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="expected one of faiss:FOLDER"):
        parse_target(url)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:secret@host/db#t",
        "postgresql://host/db?user=me&password=secret#t",
        "qdrant:https://me:secret@host#t",
    ],
)
def test_no_message_shows_a_password(url: str) -> None:
    assert "secret" not in str(parse_target(url))
    for wrong in (url.rpartition("#")[0], "x" + url):
        with pytest.raises(ConfigError) as caught:
            parse_target(wrong)
        assert "secret" not in str(caught.value)
