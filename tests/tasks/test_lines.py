from __future__ import annotations

from tasks.lines import as_line


def test_ids_are_short_except_in_paths() -> None:
    identity = "0123456789abcdef" * 4
    assert as_line(f"sealed space {identity}: fit none") == "sealed space 0123456789ab…: fit none"
    assert as_line(f"encoder {identity}.") == "encoder 0123456789ab…."
    for path in (f"encoders/{identity}/model", f"segments/{identity}.parquet", f"{identity}.json"):
        assert as_line(f"{path}: damaged") == f"{path}: damaged"


def test_a_line_is_one_printable_line() -> None:
    assert as_line("a\n  b\x1b[31m") == "a b\\x1b[31m"
