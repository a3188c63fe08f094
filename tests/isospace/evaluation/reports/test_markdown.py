from isospace.evaluation.reports.markdown import as_cell


def test_texts_of_a_corpus_are_no_markup() -> None:
    hostile = "a | b\n| c <img src=x> ![p](http://evil/p.png) `x` **y**"
    cell = as_cell(hostile)
    assert "\n" not in cell
    for sign in "|<![`*":
        assert cell.count(sign) == cell.count("\\" + sign) > 0
