from __future__ import annotations

import re

from isospace.evaluation.reports.artifacts import artifact_key, markdown_table, report_line
from isospace.evaluation.reports.markdown import as_text


def test_keys_are_those_that_prefect_takes_and_name_one_collection_each() -> None:
    names = ["docs", "Docs", "team.docs", "team-docs", "team_docs", "a" * 100, "1.."]
    keys = [artifact_key(name, "run") for name in names]
    assert keys[0] == "docs-run"
    assert artifact_key("team-docs", "gate") == "team-docs-gate"
    assert len(set(keys)) == len(names)
    for key in keys:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", key), key


def test_a_file_is_no_link() -> None:
    assert report_line("http://h:1/reports/r/report.html").endswith("(http://h:1/reports/r/report.html)")
    for place in ("/store/reports/r/report.html", "s3://bucket/reports/r/report.html"):
        assert "](" not in report_line(place)
        assert f"`{place}`" in report_line(place)


def test_cells_are_no_markup_and_numbers_are_on_the_right() -> None:
    table = markdown_table(("name", "count"), [("a | b\nc", "1"), ("![x](http://evil)", "2")], numbers=(1,))
    head, rule, first, second = table.split("\n")
    assert (head, rule) == ("| name | count |", "| --- | ---: |")
    assert first == "| a \\| b c | 1 |"
    assert "![x]" not in second


def test_code_in_a_message_stays_code_and_nothing_else_is_markup() -> None:
    assert as_text("run `isospace gate [a]` for *b*") == "run `isospace gate [a]` for \\*b\\*"
    assert as_text("odd ` sign [x](y)") == "odd ` sign \\[x\\](y)"
    assert "\n" not in as_text("# a\n# b")
