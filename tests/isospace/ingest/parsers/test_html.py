"""The text of a page is what the page shows, word for word; what is left out of it is said."""

from __future__ import annotations

import re
from typing import Any

import pytest

from isospace.ingest.parsers.html import LEFT_OUT, MAX_LEFT_OUT, parse_html
from isospace.ingest.parsers.html_candidates import Surroundings, _surroundings
from isospace.ingest.parsers.parsed import Parsed

CRANES = [f"The harbour crane number {n} lifts containers, and somebody inspects it every spring." for n in range(4)]
PROSE = "".join(f"<p>{sentence}</p>" for sentence in CRANES)
MENU = "<nav><ul><li><a href=/>Home</a><li><a href=/news>News of the port</a></ul></nav>"


def article(content: str) -> str:
    head = "<!DOCTYPE html><html><head><meta charset=utf-8><title>Cranes</title></head><body>"
    return (
        f"{head}{MENU}<article><h1>Cranes</h1>{PROSE}{content}{PROSE}</article><footer>Imprint</footer></body></html>"
    )


def parse(page: str, *, keep_all: bool = False) -> Parsed:
    return parse_html(page.encode(), "stem", keep_all=keep_all)


def between(content: str) -> str:
    """Return what becomes of content in the middle of an article."""
    text = parse(article(content)).text
    parts = text.split(CRANES[-1])
    assert len(parts) == 3, text
    return parts[1].removesuffix("\n\n".join(CRANES[:-1]) + "\n\n").strip("\n")


@pytest.mark.parametrize(
    "words",
    [
        "max_load_kg and CRANE_MAX_LOAD, get_load_limit() *args **kwargs",
        "a &lt; b &amp;&amp; c &gt; d | e",
        "[link](not one) # no heading, 1. no list, `no code` ~x~ \\d+ \\\\server",
        "C:\\temp\\new_file, <code>x_y</code>, <b>bo</b>ld, <i>i_t</i>alic",
    ],
)
def test_text_is_verbatim(words: str) -> None:
    plain = re.sub("<[^>]*>", "", words).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    assert between(f"<p>Set {words}.</p>") == f"Set {plain}."


@pytest.mark.parametrize(
    "tag",
    ["time", "output", "label", "button", "nobr", "ins", "mark", "data", "meter", "cite", "small", "dfn", "my-word"],
)
def test_no_element_takes_its_words_out_of_a_sentence(tag: str) -> None:
    sentence = f"<p>The next inspection is on <{tag}>3_May</{tag}>, and lasts two days.</p>"
    assert between(sentence) == "The next inspection is on 3_May, and lasts two days."


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("<figure><pre><code>cranectl start\n  --load 40</code></pre></figure>", "cranectl start\n  --load 40"),
        ("<figure><blockquote><p>Never in a storm.</p></blockquote></figure>", "Never in a storm."),
        ("<figure><img src=a.png><figcaption>Loads by year</figcaption></figure>", "Loads by year"),
        ("<fieldset><legend>Loads</legend><p>At most 40 t.</p></fieldset>", "Loads\n\nAt most 40 t."),
        ("<aside class=note>Mind the hook.</aside>", "Mind the hook."),
        ("<aside><p>Mind the rope too.</p></aside>", "Mind the rope too."),
        ("<center><h2>Loads</h2></center>", "Loads"),
        ("<details><summary>More</summary>All of it.</details>", "More\nAll of it."),
        ("<dl><dt>Hook</dt><dd>Holds the load.</dd></dl>", "Hook\nHolds the load."),
        ("<table><tr><th>Port<th>Fee<tr><td>A_B<td><p>5 &lt; 6</p></table>", "Port\tFee\nA_B\t5 < 6"),
        ("<ul><li>one<ul><li>two</ul><li><p>three</p></ul>", "one\ntwo\nthree"),
        ("<p>One<br>two&nbsp;three  \n four</p>", "One\ntwo\u00a0three four"),
        ("<p>漢<ruby>字<rp>(</rp><rt>じ</rt><rp>)</rp></ruby></p>", "漢字(じ)"),
        ("<template><p>Nobody sees this</p></template>", ""),
        ("<p hidden>Nor this</p><div style='display: none'>nor this</div><dialog>nor this</dialog>", ""),
        ("<script>var x = 'nor this'</script><style>p {}</style><noscript>nor this</noscript>", ""),
        (
            "<div role=tabpanel hidden><p>On Windows, run it as an administrator.</p></div>",
            "On Windows, run it as an administrator.",
        ),
        ("<div class=share-buttons>Tell all of your friends about this crane</div>", ""),
        ("<h2>Ropes<a class=headerlink href=#ropes>¶</a></h2>", "Ropes"),
    ],
)
def test_what_an_article_shows_is_its_text(content: str, text: str) -> None:
    assert between(content) == text


def test_menus_and_footers_are_no_main_text_unless_all_is_wanted() -> None:
    main, everything = parse(article("")), parse(article(""), keep_all=True)
    assert "News of the port" not in main.text
    assert "Imprint" not in main.text
    assert everything.text.startswith("Home\nNews of the port")
    assert everything.text.endswith("Imprint")
    assert everything.notes == ()


def test_a_heading_follows_two_empty_lines_so_that_a_chunk_begins_there() -> None:
    text = parse(article("<section><h2>Ropes</h2><p>Of the ropes of every crane on the quay.</p></section>")).text
    assert "spring.\n\n\nRopes\n\nOf the ropes" in text


def test_a_heading_before_the_first_paragraph_is_text() -> None:
    assert parse(f"<center><h2>Loads_of</h2></center>{PROSE}").text.startswith("Loads_of\n\nThe harbour crane")


def test_the_share_left_out_is_said_and_warned_of_above_a_limit() -> None:
    (note,) = parse(article("")).notes
    assert (note.kind, note.warns) == (LEFT_OUT, False)
    assert 0.0 < note.amount < 0.1
    (note,) = parse(f"<nav>{'<p>More about the port and its many offices.</p>' * 40}</nav><main>{PROSE}</main>").notes
    assert note.warns
    assert note.amount > MAX_LEFT_OUT
    assert f"{note.amount:.0%}" in note.detail


def test_the_whole_main_element_counts_if_the_extractor_finds_less_than_half_of_it() -> None:
    # The extractor takes an ID with this word for a list of related pages.
    sections = "".join(f"<section id=range_related_{n}><h2>Part {n}</h2>{PROSE}</section>" for n in range(5))
    page = f"<main><h1>All</h1><section id=introduction><h2>Introduction</h2>{PROSE}</section>{sections}</main>"
    assert parse(page).text.count(CRANES[0]) == 6


@pytest.mark.parametrize(
    "content", ["<h3><a name=x>Hooks</a></h3>{}<ul><li>one</ul>", "<table><tr><td></table>{}<p>one"]
)
def test_sentences_between_paragraphs_need_no_paragraph_of_their_own(content: str) -> None:
    words = "Bare words that stand in the body itself, and make a sentence of it."
    assert words in parse(f"<body>{PROSE}{content.format(words)}{PROSE}</body>").text


@pytest.mark.parametrize(
    "content",
    [
        "<figure><pre>cranectl_stop</pre></figure>",
        "<figure><figcaption>cranectl_stop</figcaption></figure>",
        "<fieldset><legend>Stop</legend><p>cranectl_stop</p></fieldset>",
        "<aside>cranectl_stop</aside>",
    ],
)
def test_what_stands_at_the_end_of_an_article_is_read_too(content: str) -> None:
    page = article("").replace("</article>", f"{content}</article>")
    assert parse(page).text.endswith("cranectl_stop")


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<p>One paragraph.</p>", "One paragraph."),
        ("<table><tr><td>Port<td>Fee</table>", "Port\tFee"),
        ("<td>Port</td><td>Fee</td>", "Port\tFee"),
        ("Bare words &amp; more", "Bare words & more"),
        ("<!-- exported --><li>one<li>two", "one\ntwo"),
        ("<pre>  a\n  b</pre>", "  a\n  b"),
        ("<h3>Only a heading</h3>", "Only a heading"),
        ("<span>inline</span> <em>only</em>", "inline only"),
        ("<blockquote>Said_so</blockquote>", "Said_so"),
        ("<frameset><frame src=a><noframes><body>No frames</body></noframes></frameset>", "No frames"),
        ("<?xml version='1.0'?><html xmlns='http://www.w3.org/1999/xhtml'><head><title/><script src='x'/></head>"
         "<body><p>XHTML</p></body></html>", "XHTML"),
        ("<html xmlns='http://www.w3.org/1999/xhtml'><body><p>not&nbsp;well<br>formed</html>", "not\u00a0well\nformed"),
        ("<!-- nothing -->", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_fragments_are_documents(page: str, text: str) -> None:
    parsed = parse(page)
    assert parsed.text == text
    assert parsed.notes == ()


def test_the_marks_of_blocks_are_in_no_text_and_braille_of_the_page_is() -> None:
    text = parse(article("<p>In Braille: ⠃⠗⠇ ⠉⠗⠁⠝⠑⠎.</p>")).text
    assert re.findall("[\u2800-\u28ff]+", text) == ["⠃⠗⠇", "⠉⠗⠁⠝⠑⠎"]


def test_every_word_of_the_text_is_on_the_page() -> None:
    page = article("<h2>A_b</h2><ol><li>x</ol><table><tr><td>y</table><hr><p>z <a href=q>link</a> <img alt=w>")
    words = parse(page).text.split()
    assert not [word for word in words if word not in re.sub("<[^>]*>", " ", page)]


@pytest.mark.parametrize(
    ("page", "title"),
    [
        ("<title>x</title><main><h1 id=i>Install<a class=headerlink href=#i>¶</a></h1>{}</main>", "Install"),
        ("<title>x</title><body><h1><a class=header href=#i>Use <code>x</code></a></h1>{}", "Use x"),
        ("<title>x</title><main><article><h1>Install<a href=page.html#i>#</a></h1>{}</article></main>", "Install"),
        ("<title>T - x</title><h1 hidden>Nobody sees it</h1>{}", "T - x"),
        ("<title>RFC-2119 -\n Key words</title>{}", "RFC-2119 - Key words"),
        ("<title>a | b | c</title>{}", "a | b | c"),
        ("<title>All</title><header><h1><a href=/>ACME</a></h1></header><main>{}</main>", "All"),
        ("<title>All</title><div><h1><a href=/>ACME</a></h1></div><h2>Pumps</h2>{}", "All"),
        ("<title>Port</title><frameset><frame src=a><noframes><body>No frames</body></noframes></frameset>", "Port"),
        ("<svg><title>Icon</title></svg>{}", "stem"),
    ],
)
def test_the_title_is_the_main_heading_or_else_what_the_page_declares(page: str, title: str) -> None:
    assert parse(page.format(PROSE)).title == title
    assert parse(page.format(PROSE), keep_all=True).title == title


SHOWN = "SHOWN: of the ropes, somebody says"


@pytest.mark.parametrize(
    "page",
    [
        "<body>SHOWN: of the ropes, somebody says so.{p}",
        "<body><b>SHOWN: of the ropes, somebody says</b>{p}",
        "{m}<article>{p}<section><h2>S</h2>SHOWN: of the ropes, somebody says so.</section></article>",
        "{m}<main><article>{p}</article><article><p>SHOWN: of the ropes, somebody says so.</article></main>",
        "<title>x</title><main><p>SHOWN: of the ropes, somebody says so.</p>{p}</main>",
        "{m}<div class=alert>SHOWN: of the ropes, somebody says so.</div><article>{p}</article>",
        "{m}<div class=alert><p>SHOWN: of the ropes, somebody says so.</p></div><article>{p}</article>",
        "<body>{p}<listing>SHOWN: of the ropes, somebody says</listing>{p}",
        "<body>{p}<xmp>SHOWN: of the ropes, somebody says</xmp>{p}",
        "<article>{p}<blockquote>So.<footer>SHOWN: of the ropes, somebody says</footer></blockquote></article>",
        "<main><section>{p}</section><section id=comments><h2>Comments</h2><p>SHOWN: of the ropes, somebody says</p>"
        "</section></main>",
        "<main>{p}<section id=sharing-data><h2>Sharing</h2><p>SHOWN: of the ropes, somebody says</section>{p}</main>",
        "<body>{p}<p class=author>SHOWN: of the ropes, somebody says</p>",
        "<article>{p}<form>SHOWN: of the ropes, somebody says <input></form>{p}</article>",
        "<body>{p}<ul><li><a href=x>SHOWN: of the ropes, somebody says</a></ul>{p}",
        "<body>{p}<object data=x><p>SHOWN: of the ropes, somebody says</p></object>{p}",
        "<my-x><template shadowrootmode=open><p>SHOWN: of the ropes, somebody says</p>{p}</template></my-x>",
        "<div id=app></div><noscript><p>SHOWN: of the ropes, somebody says</p>{p}</noscript>",
    ],
)
def test_what_the_main_part_shows_is_text_wherever_it_stands(page: str) -> None:
    assert SHOWN in parse(page.format(p=PROSE, m=MENU)).text


@pytest.mark.parametrize(
    "page",
    [
        "<div class=cookie-banner><p>ASIDE: all of the cookies help us.</div><article>{p}</article>",
        "<div>ASIDE: these cookies make the site better for everybody.</div><article>{p}</article>",
        "<body>{p}<div class=footer>ASIDE: all of the rights are those of the port.</div>",
        "<article>{p}</article><div id=comments><h3>Comments</h3><p class=comment>ASIDE: so very nice.</div>",
        "<main><article>{p}</article><aside><p>ASIDE: about this port, and all of its cranes.</aside></main>",
        "<main>{p}<ul><li><a href=x>ASIDE: another page</a></ul></main>",
        "<body>{p}<noscript>ASIDE: please enable JavaScript.</noscript>",
        "<div id=app></div><noscript>ASIDE: please enable JavaScript.</noscript>",
        "<body>{p}<template><p>ASIDE: a template</template>",
        "<main>{p}<footer>ASIDE: the imprint of the port of many cranes</footer></main>",
    ],
)
def test_what_is_around_the_main_part_is_no_text(page: str) -> None:
    assert "ASIDE" not in parse(page.format(p=PROSE)).text


@pytest.mark.parametrize("hidden", ["<noscript>{}</noscript>", "<div hidden>{}</div>", "<template>{}</template>"])
def test_hidden_text_counts_in_the_share_left_out(hidden: str) -> None:
    (note,) = parse(f"<body>{PROSE}{hidden.format(PROSE * 4)}").notes
    assert note.amount == pytest.approx(0.8)
    assert note.warns


def test_the_names_of_an_element_are_read_once_however_many_blocks_are_in_it() -> None:
    reads = []

    class Element:
        tag, text = "div", ""

        def get(self, name: str) -> str | None:
            reads.append(name)
            return None

        def getparent(self) -> None:
            return None

    around, known = Element(), dict[Any, Surroundings]()
    first = _surroundings(around, known)
    count = len(reads)
    assert _surroundings(around, known) is first
    assert len(reads) == count > 0


def test_headings_of_the_main_text_have_levels_and_places() -> None:
    content = (
        "<h2>Ropes <em>and</em> hooks<a class=headerlink href=#r>¶</a></h2>"
        "<p>Of the ropes of every crane on the quay.</p><h4>Two<br>lines</h4>"
        "<p>Of the hooks of every crane on the quay, too.</p><h3></h3>"
        "<h3><div>In two</div><div>parts</div></h3>"
    )
    parsed = parse(article(content))
    assert [(one.level, one.text) for one in parsed.headings] == [
        (1, "Cranes"), (2, "Ropes and hooks"), (4, "Two lines"), (3, "In two parts"),
    ]  # fmt: skip
    starts = [parsed.text[one.start :].split("\n")[0] for one in parsed.headings]
    assert starts == ["Cranes", "Ropes and hooks", "Two", "In two"]
    everything = parse("<nav><h2>Menu</h2></nav>" + article(content), keep_all=True)
    assert next(one.text for one in everything.headings) == "Menu"


def test_a_page_without_headings_has_none() -> None:
    assert parse(f"<main>{PROSE}</main>").headings == ()
