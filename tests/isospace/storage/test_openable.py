from __future__ import annotations

from pathlib import Path

from isospace.storage.openable import openable
from isospace.storage.store import open_store


def test_a_local_file_is_an_absolute_path(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store("store")
    store.write("reports/r/report.html", b"page")
    assert Path(openable(store, "reports/r/report.html")).read_bytes() == b"page"
    assert openable(store, "reports/r/report.html") == str(tmp_path / "store/reports/r/report.html")


def test_an_object_has_its_url() -> None:
    for url in ("s3://bucket/prefix", "s3://bucket/prefix/"):
        assert openable(open_store(url), "reports/r.html") == "s3://bucket/prefix/reports/r.html"
