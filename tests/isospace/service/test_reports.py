"""The server of reports gives reports and nothing else, and says why it refuses."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from isospace.errors import ConfigError, StoreError
from isospace.evaluation.reports.page import Page, Section, write_page
from isospace.service.reports import _names, reports_app, serve_reports
from isospace.storage.store import Store, open_store

RUN = "20260101T000000Z-aaaa"
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = open_store(tmp_path / "store")
    page = Page(f"c: {HOSTILE}", f"outcome {HOSTILE}", "good", (Section("s", f"text {HOSTILE}"),))
    write_page(store, RUN, page, collection="c")
    store.write("secret.json", b"secret")
    (tmp_path / "report.html").write_text("outside of the store")
    return store


def ask(
    store: Store, *paths: str, method: str = "GET", host: str = "127.0.0.1", **given: object
) -> list[httpx.Response]:
    async def asking() -> list[httpx.Response]:
        transport = httpx.ASGITransport(reports_app(store, **given), raise_app_exceptions=False)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}:8090") as client:
            return [await client.request(method, path) for path in paths]

    return asyncio.run(asking())


def test_the_list_links_to_pages_and_escapes_their_titles(store: Store) -> None:
    index, page, figures = ask(store, "/", f"/reports/{RUN}/report.html", f"/reports/{RUN}/report.json")
    assert index.status_code == page.status_code == figures.status_code == 200
    assert f'href="/reports/{RUN}/report.html"' in index.text
    for answer in (index, page):
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert HOSTILE not in answer.text
        assert "&lt;script&gt;" in answer.text
    assert figures.headers["content-type"] == "application/json"


def test_nothing_of_a_report_is_kept_or_loaded_from_elsewhere(store: Store) -> None:
    for answer in ask(store, "/", f"/reports/{RUN}/report.html", "/nope"):
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert not any("http" in sources or "*" in sources for sources in policy.values())
        # A report may be erased with a document that it quotes.
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    [
        f"/reports/{RUN}/quotes.json",
        f"/reports/{RUN}/..%2F..%2Fsecret.json",
        "/reports/..%2f..%2fstore%2fsecret.json",
        "/reports/%2e%2e/report.html",
        "/reports/..%2F../report.html",
        "/reports/.tmp-1/report.html",
        "/secret.json",
        "/reports/",
        "//etc/passwd",
    ],
)
def test_nothing_else_of_the_store_is_served(store: Store, path: str) -> None:
    (answer,) = ask(store, path)
    assert answer.status_code == 404
    assert answer.content != b"secret"
    assert "listed at /" in answer.text


def test_head_has_no_body_and_other_methods_are_refused_with_a_reason(store: Store) -> None:
    whole, head = (
        ask(store, f"/reports/{RUN}/report.html")[0],
        ask(store, f"/reports/{RUN}/report.html", method="HEAD")[0],
    )
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(whole.content))
    for method in ("POST", "PUT", "DELETE"):
        (answer,) = ask(store, f"/reports/{RUN}/report.html", method=method)
        assert answer.status_code == 405
        assert "only reads" in answer.text
        assert "GET" in answer.headers["allow"]


def test_an_erased_report_is_said_to_be_gone(store: Store) -> None:
    store.delete(f"reports/{RUN}/report.html")
    (answer,) = ask(store, f"/reports/{RUN}/report.html")
    assert answer.status_code == 404
    assert "may have been erased" in answer.text


def test_another_host_name_is_refused_unless_it_is_allowed(store: Store) -> None:
    assert ask(store, "/", host="[::1]")[0].status_code == 200
    (refused,) = ask(store, "/", host="evil.example")
    assert refused.status_code == 400
    assert "--allow-host" in refused.text
    assert ask(store, "/", host="evil.example", allowed_hosts=["Evil.Example"])[0].status_code == 200
    assert ask(store, "/", host="evil.example", allowed_hosts=["*"])[0].status_code == 200


@pytest.mark.parametrize(
    ("host", "allowed", "names"),
    [
        ("127.0.0.1", (), ["127.0.0.1"]),
        ("0.0.0.0", (), ["*"]),
        ("0.0.0.0", ("reports.example",), ["0.0.0.0", "reports.example"]),
    ],
)
def test_host_names_are_limited_wherever_some_are_given(host: str, allowed: tuple[str, ...], names: list[str]) -> None:
    assert _names(host, allowed) == names


def test_a_list_can_be_narrowed_to_a_collection_and_a_kind(store: Store) -> None:
    for n in range(12):
        write_page(store, f"20260102T0000{n:02d}Z-bbbb-audit", Page(f"audit {n}", "o", "good", ()), collection="d.e")
    index, audits, runs = ask(store, "/", "/?collection=d.e&kind=audit", "/?collection=d.e&kind=run")
    assert index.text.count(">audit ") == 10
    assert "/?collection=d.e&amp;kind=audit" in index.text
    assert audits.text.count(">audit ") == 12
    assert "no report here" in runs.text


def test_a_store_that_fails_is_an_answer(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bytes:
        raise StoreError("the store is gone")

    monkeypatch.setattr(type(store), "read", fail)
    (answer,) = ask(store, f"/reports/{RUN}/report.html")
    assert answer.status_code == 503
    assert "the store is gone" in answer.text


def test_a_store_or_an_address_that_cannot_be_used_is_said_before_anything_listens(
    store: Store, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        serve_reports(open_store(tmp_path / "stroe"))
    with pytest.raises(ConfigError, match=r"--host 203\.0\.113\.1 --port 1: cannot listen there"):
        serve_reports(store, host="203.0.113.1", port=1)
