from __future__ import annotations

from pathlib import Path

import pytest

from isospace.storage.openable import REPORT_STORE_VARIABLE, REPORT_URL_VARIABLE, is_link, openable, report_address
from isospace.storage.store import open_store
from tests.helpers.runs import bare_config


def test_a_local_file_is_an_absolute_path(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store("store")
    store.write("reports/r/report.html", b"page")
    assert Path(openable(store, "reports/r/report.html")).read_bytes() == b"page"
    assert openable(store, "reports/r/report.html") == str(tmp_path / "store/reports/r/report.html")


def test_an_object_has_its_url() -> None:
    for url in ("s3://bucket/prefix", "s3://bucket/prefix/"):
        assert openable(open_store(url), "reports/r.html") == "s3://bucket/prefix/reports/r.html"


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (REPORT_URL_VARIABLE, REPORT_STORE_VARIABLE):
        monkeypatch.delenv(name, raising=False)


def test_without_a_server_a_report_is_named_by_its_file_and_is_no_link(tmp_path: Path) -> None:
    address = report_address(open_store(tmp_path), "reports/r/report.html")
    assert address == str(tmp_path / "reports/r/report.html")
    assert not is_link(address)
    assert not is_link(report_address(open_store("s3://bucket/prefix"), "reports/r/report.html"))


def test_with_a_server_it_is_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(tmp_path)
    link = "http://reports.example:8090/reports/r/report.html"
    assert report_address(store, "reports/r/report.html", "http://reports.example:8090/") == link
    assert is_link(link)
    monkeypatch.setenv(REPORT_URL_VARIABLE, "http://reports.example:8090")
    assert report_address(store, "reports/r/report.html") == link
    # The configuration comes first.
    assert report_address(store, "reports/r/report.html", "https://other").startswith("https://other/")
    assert (
        report_address(store, "reports/a b#c/report.html")
        == "http://reports.example:8090/reports/a%20b%23c/report.html"
    )


def test_the_server_of_another_store_gives_no_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(REPORT_URL_VARIABLE, "http://reports.example:8090")
    monkeypatch.setenv(REPORT_STORE_VARIABLE, "served")
    assert is_link(report_address(open_store("served"), "reports/r/report.html"))
    assert is_link(report_address(open_store(tmp_path / "served"), "reports/r/report.html"))
    assert not is_link(report_address(open_store("other"), "reports/r/report.html"))


@pytest.mark.parametrize(
    "url", ["reports.example:8090", "ftp://reports.example", "javascript:alert(1)", "http://", "http://a b"]
)
def test_a_configuration_takes_only_the_address_of_a_server(url: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"http://reports\.example:8090"):
        bare_config(tmp_path, report_url=url)
    assert bare_config(tmp_path, report_url="https://reports.example/isospace").runtime.report_url
