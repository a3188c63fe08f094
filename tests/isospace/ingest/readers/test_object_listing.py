"""Odd keys in an object store cost themselves alone."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest
from pyarrow import fs

from isospace.errors import ConfigError, SourceError
from isospace.ingest.document import Document, QuarantineEntry
from isospace.ingest.readers.location import list_source
from isospace.ingest.readers.read import read_source
from isospace.ingest.spec import DocumentsSpec
from tests.helpers.azurite import ACCOUNT, KEY, azurite, put_blob
from tests.helpers.object_servers import settings

REASON = "has a key with an empty segment (//), which cannot be read; copy it to another key"
KEYS: dict[str, bytes] = {}


class _Bucket(BaseHTTPRequestHandler):
    """What reading needs of S3 and Google: list a prefix, and get an object; and Google's listing of another API."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path.startswith("/storage/v1/"):
            self._answer(200, self._json_listing(parts.path, parse_qs(parts.query).get("prefix", [""])[0]))
            return
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

    def _json_listing(self, path: str, prefix: str) -> bytes:
        assert path == "/storage/v1/b/bucket/o"
        kind = {"kind": "storage#object", "bucket": "bucket", "updated": "2024-01-01T00:00:00Z"}
        items = [{**kind, "name": key, "size": str(len(body))} for key, body in KEYS.items() if key.startswith(prefix)]
        return json.dumps({"kind": "storage#objects", "items": items}).encode()

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


@dataclass(frozen=True)
class Bucket:
    url: str
    put: Callable[[Mapping[str, bytes]], None]
    """Replace all objects by these."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Bucket)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(params=["s3", "gs", pytest.param("az", marks=pytest.mark.integration)])
def bucket(request: pytest.FixtureRequest) -> Bucket:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Bucket)
    return found


@pytest.fixture
def s3(server: str) -> Iterator[Bucket]:
    values = {"AWS_ENDPOINT_URL": server, "AWS_REGION": "us-east-1"}
    with settings({**values, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"}):
        yield Bucket("s3://bucket", replace_all)


@pytest.fixture
def gs(server: str) -> Iterator[Bucket]:
    with settings({"STORAGE_EMULATOR_HOST": server}):
        yield Bucket("gs://bucket", replace_all)


@pytest.fixture(scope="module")
def emulator() -> Iterator[str]:
    with azurite("bucket") as endpoint:
        yield endpoint


@pytest.fixture
def az(emulator: str) -> Iterator[Bucket]:
    values = {"AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT, "AZURE_STORAGE_ACCOUNT_KEY": KEY}
    with settings({**values, "AZURE_STORAGE_ENDPOINT": emulator}):
        yield Bucket("az://bucket", lambda objects: replace_blobs(emulator, objects))


def replace_all(objects: Mapping[str, bytes]) -> None:
    KEYS.clear()
    KEYS.update(objects)


def replace_blobs(endpoint: str, objects: Mapping[str, bytes]) -> None:
    parts = urlsplit(endpoint)
    places = {f"{kind}_storage_authority": parts.netloc for kind in ("blob", "dfs")}
    schemes = {f"{kind}_storage_scheme": "http" for kind in ("blob", "dfs")}
    client = fs.AzureFileSystem(ACCOUNT, account_key=KEY, **places, **schemes)
    client.delete_dir_contents("bucket", missing_dir_ok=True)
    for key, body in objects.items():
        put_blob(endpoint, "bucket", key, body)


def fill(bucket: Bucket, *keys: str) -> None:
    bucket.put({key: f"text of {key}".encode() for key in keys})


def read(url: str) -> tuple[list[str], dict[str, str]]:
    items = list(read_source(url, DocumentsSpec()))
    aside = {item.uri: item.reason for item in items if isinstance(item, QuarantineEntry)}
    return [item.doc_id for item in items if isinstance(item, Document)], aside


@pytest.mark.parametrize(
    ("odd", "name"),
    [("docs//odd.md", "/odd.md"), ("docs/x//odd.md", "x//odd.md"), ("docs/x///y/odd.md", "x///y/odd.md")],
)
@pytest.mark.parametrize("below", ["docs", "docs/", "docs/**/*.md"])
def test_a_key_with_an_empty_segment_is_set_aside(bucket: Bucket, below: str, odd: str, name: str) -> None:
    fill(bucket, "docs/a.md", "docs/x/b.md", "docs/z.md", odd)
    if bucket.url.startswith("az://"):
        with pytest.raises(SourceError, match=f"the blob '{odd}' has an empty segment"):
            read(f"{bucket.url}/{below}")
        return
    documents, aside = read(f"{bucket.url}/{below}")
    assert documents == ["a.md", "x/b.md", "z.md"]
    assert aside == {name: REASON}


@pytest.mark.parametrize("bucket", ["s3", "gs"], indirect=True)
def test_a_whole_bucket_with_an_odd_key_is_read(bucket: Bucket) -> None:
    fill(bucket, "a.md", "x//b.md", ".hidden//c.md")
    assert read(bucket.url) == (["a.md"], dict.fromkeys(["x//b.md"], REASON))


def test_globs_and_the_store_of_a_run_mean_the_same_in_an_object_store(bucket: Bucket) -> None:
    fill(bucket, "docs/a.md", "docs/x/b.md", "docs/x/y/c.md", "docs/store/encoders/e/README.md", "docs/storeroom/d.md")
    assert [file.name for file in list_source(f"{bucket.url}/docs/*.md").files] == ["a.md"]
    assert [file.name for file in list_source(f"{bucket.url}/docs/x/**/*.md").files] == ["b.md", "y/c.md"]
    listing = list_source(f"{bucket.url}/docs", store=f"{bucket.url}/docs/store")
    assert [file.name for file in listing.files] == ["a.md", "storeroom/d.md", "x/b.md", "x/y/c.md"]
    assert [(entry.uri, entry.documents) for entry in listing.left_out] == [("store/", 0)]
    assert not list_source(f"{bucket.url}/docs", store="/docs/store").left_out
    with pytest.raises(SourceError, match="is the store itself"):
        list_source(f"{bucket.url}/docs/", store=f"{bucket.url}/docs")


def test_objects_that_stand_for_folders_are_no_files(bucket: Bucket) -> None:
    bucket.put({"docs/a.md": b"text", "docs/x/": b"", "docs/y_$folder$": b"", "docs/": b"", "docs/x/b.md": b"text"})
    assert read(f"{bucket.url}/docs") == (["a.md", "x/b.md"], {})


def test_a_single_object_is_a_source(bucket: Bucket) -> None:
    fill(bucket, "docs/a.md", "docs/a.md.txt")
    assert read(f"{bucket.url}/docs/a.md") == (["a.md"], {})
    with pytest.raises(SourceError, match="cannot be listed"):
        list_source(f"{bucket.url}/docs/missing.md")


def test_a_store_of_the_same_name_on_another_service_is_not_this_one(bucket: Bucket) -> None:
    fill(bucket, "docs/a.md", "docs/store/b.md")
    for other in {"s3://bucket", "gs://bucket", "az://bucket"} - {bucket.url}:
        listing = list_source(f"{bucket.url}/docs", store=f"{other}/docs/store")
        assert [file.name for file in listing.files] == ["a.md", "store/b.md"]


def test_a_store_is_left_out_however_its_container_is_spelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "mine")
    for store in ("az://box/docs/", "abfss://box@mine.dfs.core.windows.net/docs"):
        with pytest.raises(SourceError, match="is the store itself"):
            list_source("abfs://box/docs", store=store)


@pytest.mark.parametrize("url", ["s3://", "gs://*/x", "az:///x"])
def test_a_source_without_a_bucket_is_refused(url: str) -> None:
    with pytest.raises((SourceError, ConfigError), match="names no bucket; expected"):
        list_source(url)


@pytest.mark.parametrize("url", ["gs://bucket/x?X-Goog-Signature=hush", "https://me:hush@host/x?sig=hush", "ftp://x/y"])
def test_a_source_elsewhere_or_with_a_signature_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises((SourceError, ConfigError), match=r"expected|Expected") as caught:
        list_source(url)
    assert "hush" not in str(caught.value)
