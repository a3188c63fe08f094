"""Odd keys under an s3:// prefix cost themselves alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest

from isospace.errors import SourceError
from isospace.ingest.document import Document, QuarantineEntry
from isospace.ingest.readers.location import list_source
from isospace.ingest.readers.read import read_source
from isospace.ingest.spec import DocumentsSpec

REASON = "has a key with an empty segment (//), which cannot be read; copy it to another key"
KEYS: dict[str, bytes] = {}


class _Bucket(BaseHTTPRequestHandler):
    """The two requests of S3 that reading needs: list a prefix, and get an object."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if "list-type" in parts.query:
            self._answer(200, self._listing(parse_qs(parts.query).get("prefix", [""])[0]))
            return
        body = KEYS.get(unquote(parts.path).removeprefix("/bucket/"))
        self._answer(404 if body is None else 200, body or b"")

    def _listing(self, prefix: str) -> bytes:
        rows = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified><ETag>e</ETag>"
            f"<Size>{len(body)}</Size></Contents>"
            for key, body in sorted(KEYS.items())
            if key.startswith(prefix)
        )
        return f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>".encode()

    def _answer(self, status: int, body: bytes) -> None:
        first, last = 0, len(body)
        if (span := self.headers.get("Range", "")).startswith("bytes=") and status == 200:
            start, _, end = span[6:].partition("-")
            status, first, last = 206, int(start), min(int(end or len(body)) + 1, len(body))
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {first}-{last - 1}/{len(body)}")
        for name, value in (("ETag", '"e"'), ("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")):
            self.send_header(name, value)
        self.send_header("Content-Length", str(last - first))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[first:last])


@pytest.fixture(scope="module")
def bucket() -> Iterator[dict[str, bytes]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Bucket)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}", "AWS_REGION": "us-east-1"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**settings, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"}.items():
            patch.setenv(name, value)
        yield KEYS
    server.shutdown()
    server.server_close()


def fill(bucket: dict[str, bytes], *keys: str) -> None:
    bucket.clear()
    bucket.update({key: f"text of {key}".encode() for key in keys})


def read(url: str) -> tuple[list[str], dict[str, str]]:
    items = list(read_source(url, DocumentsSpec()))
    aside = {item.uri: item.reason for item in items if isinstance(item, QuarantineEntry)}
    return [item.doc_id for item in items if isinstance(item, Document)], aside


@pytest.mark.parametrize(
    ("odd", "name"),
    [("docs//odd.md", "/odd.md"), ("docs/x//odd.md", "x//odd.md"), ("docs/x///y/odd.md", "x///y/odd.md")],
)
@pytest.mark.parametrize("url", ["s3://bucket/docs", "s3://bucket/docs/", "s3://bucket/docs/**/*.md"])
def test_a_key_with_an_empty_segment_is_set_aside(bucket: dict[str, bytes], url: str, odd: str, name: str) -> None:
    fill(bucket, "docs/a.md", "docs/x/b.md", "docs/z.md", odd)
    documents, aside = read(url)
    assert documents == ["a.md", "x/b.md", "z.md"]
    assert aside == {name: REASON}


def test_a_whole_bucket_with_an_odd_key_is_read(bucket: dict[str, bytes]) -> None:
    fill(bucket, "a.md", "x//b.md", ".hidden//c.md")
    assert read("s3://bucket") == (["a.md"], dict.fromkeys(["x//b.md"], REASON))


def test_globs_and_the_store_of_a_run_mean_the_same_on_s3(bucket: dict[str, bytes]) -> None:
    fill(bucket, "docs/a.md", "docs/x/b.md", "docs/x/y/c.md", "docs/store/encoders/e/README.md", "docs/storeroom/d.md")
    assert [file.name for file in list_source("s3://bucket/docs/*.md").files] == ["a.md"]
    assert [file.name for file in list_source("s3://bucket/docs/x/**/*.md").files] == ["b.md", "y/c.md"]
    listing = list_source("s3://bucket/docs", store="s3://bucket/docs/store")
    assert [file.name for file in listing.files] == ["a.md", "storeroom/d.md", "x/b.md", "x/y/c.md"]
    assert [(entry.uri, entry.documents) for entry in listing.left_out] == [("store/", 0)]
    assert not list_source("s3://bucket/docs", store="/docs/store").left_out
    with pytest.raises(SourceError, match="is the store itself"):
        list_source("s3://bucket/docs/", store="s3://bucket/docs")
