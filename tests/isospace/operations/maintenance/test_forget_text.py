"""No text of a forgotten document is left in any file that may quote it, in whatever form the file has it."""

from __future__ import annotations

import html
import json
import re
import shutil
import unicodedata
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from isospace.collection.alias import resolve
from isospace.collection.tombstones import Receipt, write_tombstone
from isospace.errors import ConfigError
from isospace.evaluation.comparison import Comparison, QueryChange
from isospace.evaluation.gate.judge import GateResult, quoted_groups
from isospace.evaluation.gate.page import _changes
from isospace.evaluation.gate.run_gate import gate_snapshot
from isospace.evaluation.gate.spec import GateSpec
from isospace.evaluation.query_sets import EvaluationSet, freeze_set, read_set, set_versions
from isospace.evaluation.reports.markdown import as_cell
from isospace.evaluation.reports.page import Page, Section, plots_in, write_page
from isospace.evaluation.reports.plots import shown_labels
from isospace.evaluation.reports.quotes import QuoteRecord, names_of, quote_of, read_quotes, write_quotes
from isospace.evaluation.reports.vector_sections import _labelled
from isospace.finetuning.report import _words
from isospace.finetuning.tokenizer_fertility import Tokenization, WordPieces
from isospace.finetuning.workdir import work_folder
from isospace.operations.audit.alarms import Alarm
from isospace.operations.audit.audit import Audit, audit_alias, read_audits, write_audit
from isospace.operations.audit.frozen_queries import ChangedQuery
from isospace.operations.audit.page import audit_page
from isospace.operations.audit.query_log import AnswerLog, LoggedAnswer, query_hash, read_answers
from isospace.operations.audit.thresholds import Thresholds
from isospace.operations.maintenance.forget import forget
from isospace.operations.maintenance.forget_quotes import forget_quotes
from isospace.operations.maintenance.verify import verify_snapshot
from isospace.pipeline import embed
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.local_executor import LocalExecutor
from isospace.storage.hashing import seal
from isospace.storage.store import Store, open_store
from tests.conftest import sentences
from tests.helpers.inline import embed_inline
from tests.helpers.store_contents import unpacked

# The fonts of plots lack the letters of some labels.
pytestmark = pytest.mark.filterwarnings("ignore:Glyph")

SECRETS = {
    "chinese": "机密患者王小明的病历显示他于三月接受了心脏手术治疗。术后恢复良好，预计下周出院回家休养。",
    "japanese": "佐藤花子さんの給与は来月から二割増額される予定です。この件は社外秘とします。",
    "thai": "นางสาวสมหญิงได้รับการวินิจฉัยว่าเป็นโรคเบาหวานเมื่อปีที่แล้ว",
    "korean": "김철수 고객의 비밀번호는 공개되어서는 안 됩니다.",
    "one word": "Zwyxwort",
    "three words": "Vqalice Qsmith 47119",
    "marked up": 'the <b>quetzal</b> & "northropi" of <i>Rzjkl</i> isn\'t <script>known()</script> to anyone',
    "markdown": "| qvcell_one | *qvstarred* | [qvlink](http://qv.qvhost/x) | `qvcode` | C:\\qvpath\\new |",
    "lines": "1st qzline of a qznote\n\n\t2nd qzline,  with   qzroom\r\n3rd qzline \\n not a break",
    "emoji": "🦖🔥👩‍👩‍👧‍👦 qemojitail 🇫🇮",
    "decomposed": unicodedata.normalize("NFD", "Ångström Zoë naïve Qçedilla Ümläutqx"),
    "compatible": "ﬁnanzqx ①②③ ＦＵＬＬＷＩＤＴＨＱＸ ²³",
    "digits": "4012888888881881",
    "long": "The quick qxbrown fox jumps over the qxlazy dog every morning. It never qxrests at all, said nobody.",
}
SHORT = {"short": "OK"}
ALL = {**SECRETS, **SHORT}
SHARED = "alpha beta gamma delta epsilon zeta shared by two documents."
FILLERS = sentences(40)


def forms(text: str) -> set[str]:
    """The text, its sentences, lines, and words of its own, as they may be written in some file."""
    parts = {text, " ".join(text.split()), *re.split(r"[.。!?…\n\r]+", text)}
    words = {word for word in re.findall(r"\w+", text) if len(word) >= 6 or not word.isascii()}
    plain = {part.strip() for part in parts | words if len(part.strip()) >= 4}
    known = " ".join([SHARED, *FILLERS.values()]).casefold()
    return {part for part in plain if part.casefold() not in known}


def readings(data: bytes) -> Iterator[str]:
    """What a file says, as it is and as a reader would see it."""
    text = data.decode("utf-8", errors="replace")
    yield text
    unescaped = html.unescape(text)
    for said in (unescaped, re.sub(r"</?\w[^>]*>", "", unescaped), re.sub(r"\\([\W_])", r"\1", unescaped)):
        yield normal(said)


def normal(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def written(text: str) -> set[str]:
    """Every way to write a text that is searched for in the bytes of a file."""
    unicode_forms = {unicodedata.normalize(form, text) for form in ("NFC", "NFD", "NFKC", "NFKD")} | {text}
    return {
        way
        for one in unicode_forms | {text.casefold()}
        for way in (
            one,
            json.dumps(one)[1:-1],
            json.dumps(one, ensure_ascii=False)[1:-1],
            html.escape(one),
            as_cell(one),
        )
    }


def finds(data: bytes, text: str) -> bool:
    said = list(readings(data))
    return any(
        any(way in said[0] for way in written(form)) or any(normal(form) in one for one in said) for form in forms(text)
    )


@dataclass(frozen=True)
class World:
    """A store with every kind of file that may quote a document, each written by the code that writes it."""

    config: PipelineConfig
    folder: Path

    @property
    def store(self) -> Store:
        return open_store(self.config.runtime.store)

    def embed(self, *, page: bool = False, **transform: object) -> None:
        config = self.config
        if transform:
            changed = config.recipe.transform.model_validate({**config.recipe.transform.model_dump(), **transform})
            config = config.model_copy(update={"recipe": config.recipe.model_copy(update={"transform": changed})})
            config = config.model_copy(update={"runtime": config.runtime.model_copy(update={"promote_to": None})})
        embed_inline(config) if not page else self._with_page(config)

    def _with_page(self, config: PipelineConfig) -> None:
        with patch.object(embed, "run_lease", lambda *_, **__: nullcontext()):
            embed.embed_corpus(config, LocalExecutor())


def source_rows() -> list[dict[str, object]]:
    rows: list[dict[str, object]] = [
        {"doc_id": name, "text": text, "title": "a title", "source": "letters"} for name, text in FILLERS.items()
    ]
    rows += [
        {"doc_id": name, "text": SHARED, "title": "a title", "source": "letters"} for name in ("twin", "other twin")
    ]
    rows += [
        {"doc_id": name, "text": text, "title": f"{text[:30]}", "source": f"box of {text[:12]}"}
        for name, text in ALL.items()
    ]
    return [*rows, {"doc_id": "unreadable", "text": 5, "title": SECRETS["long"], "source": "letters"}]


def write_everything(world: World) -> None:
    world.embed(page=True)
    store = world.store
    world.embed(representations=["binary"])
    freeze_set(store, "c", pseudo_set(), source="corpus")
    freeze_set(store, "c", replace(pseudo_set(), name="typed", kind="judged", remainders={}), source="a file")
    spec = GateSpec(rules=("overlap@10 >= 0.99",))
    gate_snapshot(store, resolve(store, "c", "2"), spec, against="production", run_id="gated")
    write_audits(store)
    write_words(store)
    log_answers(store)
    write_leftovers(store)


def pseudo_set() -> EvaluationSet:
    texts = {**SECRETS, **dict(list(FILLERS.items())[:8])}
    names = {f"p{number:03d}": name for number, name in enumerate(texts)}
    return EvaluationSet(
        "default",
        "pseudo",
        queries={query: texts[name] for query, name in names.items()},
        judgements={query: {name: 1} for query, name in names.items()},
        remainders={query: "the rest" for query in names},
    )


def write_audits(store: Store) -> None:
    """An audit whose page quotes every document, and a record as an earlier version wrote it."""
    audit = audit_alias(store, "c", "production", Thresholds(mean_cosine=1.0), run_id="audited")
    measured = audit.measurements
    assert measured is not None
    assert measured.frozen is not None
    changed = tuple(ChangedQuery(f"p{n}", text, 0.5, (name,)) for n, (name, text) in enumerate(SECRETS.items()))
    page = audit_page(Audit(audit.record, replace(measured, frozen=replace(measured.frozen, changed=changed))))
    write_page(store, "audited", page, collection="c")
    write_audit(store, audit.record)
    body = audit.record.model_dump(mode="json")
    del body["figures"]["frozen_queries"]["changed_queries"]
    body["figures"]["frozen_queries"]["changed"] = [[text, 0.5] for text in SECRETS.values()]
    alarm = {"figure": 0.1, "limit": 0.2, "remedy": "Refit."}
    body["alarms"] = [
        Alarm(name="agreement", message=f"overlap by 3%. Most changed: {text!r}.", **alarm).model_dump()
        for text in SECRETS.values()
    ]
    store.write("collections/c/audits/00000002.json", seal({**body, "number": 2}))
    store.write("collections/c/audits/00000003.json", seal({**body, "number": 3})[:-40])


def write_words(store: Store) -> None:
    """A report of a fine-tuning lists words; one that is written with a single holder, and one with many."""
    for run_id, holders in (("own-word", ("one word",)), ("shared-word", ("one word", "twin"))):
        words = WordPieces(
            SECRETS["one word"] if run_id == "own-word" else "shared", 2, len(holders), ("a", "b"), holders
        )
        tokenization = Tokenization(1, 2, 2.0, (0.0, 1.0, 0.0, 0.0), (words,), 0, {})
        page = Page("words", "an outcome", "plain", (_words(tokenization),))
        write_page(store, run_id, page, collection="c")


def log_answers(store: Store) -> None:
    log = AnswerLog(store, "c")
    for name, text in {**ALL, "twin": SHARED}.items():
        log.add(answer(text, "d00001", name))
        log.add(replace(answer(text, "d00001"), candidate=2, candidate_doc_ids=("d00002", name)))
    log.add(answer("what people ask", "d00001"))
    log.flush()
    assert log.lost == 0
    (path,) = [stat.path for stat in store.walk("collections/c/answers")]
    store.write(path.replace(".parquet", "-cut.parquet"), store.read(path)[:-200])


def answer(text: str, *doc_ids: str) -> LoggedAnswer:
    return LoggedAnswer(
        at=datetime.now(UTC),
        snapshot=1,
        snapshot_id="s",
        space_id="s",
        alias="production",
        verified=True,
        mode="auto",
        cosine=True,
        query_sha256=query_hash(text),
        text=text,
        vector=np.zeros(4, np.float32),
        doc_ids=doc_ids,
        scores=tuple(1.0 for _ in doc_ids),
    )


def write_leftovers(store: Store) -> None:
    """Files that no record covers: of earlier versions, of killed runs, and damaged ones."""
    everything = "\n".join(ALL.values())
    assert store.root is not None
    marked = " ".join(f"<mark>{html.escape(word)}</mark>" for text in ALL.values() for word in text.split())
    store.write("reports/earlier/report.html", f"<table><tr><td>{marked}</td></tr></table>".encode())
    store.write("reports/earlier/report.json", json.dumps({"texts": list(ALL.values())}).encode())
    store.write("reports/cut/report.json", json.dumps({"texts": list(ALL.values())}).encode()[:-30])
    store.write("reports/loose.html", everything.encode("utf-16"))
    store.write("reports/clean/notes/more.txt", everything.encode())
    store.write("reports/clean/report.html", b"<p>OK</p>")
    write_quotes(store, "clean", "c", [("twin", "short")])
    store.write("reports/elsewhere/report.html", b"<p>OK</p>")
    write_quotes(store, "elsewhere", "another collection", [("short",)])
    write_quotes(store, "unsure", "c", [])
    store.write("reports/unsure/report.html", everything.encode())
    store.write("reports/unsure/quotes.json", store.read("reports/unsure/quotes.json")[:-9])
    store.write("contests/figures.json", seal({"nDCG@10": 0.5, "bytes": 4}))
    store.write("contests/quoting.json", seal({"nDCG@10": everything}))
    store.write("contests/cut.json", everything.encode())
    for folder in (
        "reports/killed",
        "contests",
        "encoders",
        "spaces",
        "vectors",
        "collections/c/audits",
        "collections/c",
    ):
        (store.root / folder).mkdir(parents=True, exist_ok=True)
        (store.root / folder / ".tmp-77-aaaa").write_text(everything, encoding="utf-8")
    (cut,) = [stat.path for stat in store.walk("collections/c/evaluation/default") if "queries.parquet" in stat.path]
    store.write("collections/c/evaluation/damaged/00000001.json", b'{"cut off')
    store.write("collections/c/evaluation/damaged/digits/queries.parquet", store.read(cut))
    store.write("collections/c/references/damaged.json", b'{"cut off')


@dataclass(frozen=True)
class Swept:
    """The files that said a text before, and what all files say afterwards."""

    store: Store
    receipt: Receipt
    before: dict[str, set[str]]
    after: list[tuple[str, bytes]]
    work: Path
    audited: QuoteRecord | None


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Swept]:
    folder = tmp_path_factory.mktemp("texts")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("ISOSPACE_CACHE", str(folder / "cache"))
        world = made_world(folder, tiny_model)
        write_everything(world)
        work = work_folder("key")
        work.mkdir(parents=True)
        (work / "pairs.json").write_text(json.dumps(list(ALL.values())))
        store = world.store
        assert store.root is not None
        before: dict[str, set[str]] = {name: set() for name in SECRETS}
        for name, data in readable(store.root):
            for secret, text in SECRETS.items():
                if finds(data, text):
                    before[secret].add(name)
        audited = read_quotes(store, "audited")
        receipt = forget(store, "c", [*ALL, "unreadable"], folder / "scratch", reason="asked")
        yield Swept(store, receipt, before, list(unpacked(store.root)), work, audited)


def made_world(folder: Path, model: Path) -> World:
    source = folder / "d.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in source_rows()), encoding="utf-8")
    recipe = {
        "documents": {"title_column": "title", "metadata_columns": ["source"]},
        "encoder": {"model": str(model)},
        "chunking": {"overlap_tokens": 4},
        "transform": {"representations": ["float32"], "fit": {"kind": "none"}},
    }
    runtime = {"store": str(folder / "store"), "collection": "c", "source": str(source), "device": "cpu"}
    return World(PipelineConfig.model_validate({"recipe": recipe, "runtime": runtime}), folder)


def readable(root: Path) -> Iterator[tuple[str, bytes]]:
    """As `unpacked`, for a store with damaged files, which are read as they are."""
    whole = root.parent / "whole"
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        shutil.rmtree(whole, ignore_errors=True)
        target = whole / path.relative_to(root)
        target.parent.mkdir(parents=True)
        shutil.copy(path, target)
        try:
            yield from list(unpacked(whole))
        except Exception:
            yield path.relative_to(root).as_posix(), path.read_bytes()


@pytest.mark.integration
@pytest.mark.parametrize("secret", SECRETS)
def test_no_file_has_it_in_any_form(swept: Swept, secret: str) -> None:
    kinds = {name.split("/")[2] for name in swept.before[secret] if name.startswith("collections/")}
    assert {"documents", "chunks", "serving", "evaluation", "answers", "audits"} <= kinds
    # An index holds pairs of characters of texts without spaces.
    assert "lexical" in kinds or secret in ("chinese", "japanese", "thai", "korean")
    tops = {"/".join(name.split("/")[:2]) for name in swept.before[secret]}
    assert {"reports/audited", "reports/earlier", "reports/cut", "reports/clean", "reports/unsure"} <= tops
    assert any(".tmp-" in name for name in swept.before[secret])
    assert [name for name, data in swept.after if finds(data, SECRETS[secret])] == []


@pytest.mark.integration
def test_every_kind_of_report_quoted_a_document(swept: Swept) -> None:
    quoting = {name for names in swept.before.values() for name in names if name.startswith("reports/")}
    for name in ("gated-gate/report.html", "gated-gate/report.json", "audited/report.html", "own-word/report.html"):
        assert any(one.endswith(name) for one in quoting), name
    assert swept.audited is not None
    assert {(name,) for name in SECRETS} <= swept.audited.quotes


@pytest.mark.integration
def test_a_text_of_two_letters_goes_and_reports_that_quote_nothing_stay(swept: Swept) -> None:
    assert swept.receipt.found == tuple(sorted(ALL))
    for name, data in swept.after:
        if name.startswith(("collections/c/", "reports/")) and name.split("/")[1] not in ("clean", "elsewhere"):
            cells = re.split(rb"[\x00\"<>\n]", data)
            assert b"OK" not in cells, name
    left = {stat.path.split("/")[1] for stat in swept.store.walk("reports")}
    runs = left - {"clean", "elsewhere", "shared-word"}
    assert {"clean", "elsewhere", "shared-word"} <= left
    # The second run has no page, and its figures name no document.
    assert len(runs) == 1
    assert [stat.path for stat in swept.store.walk(f"reports/{next(iter(runs))}")][-1].endswith("report.json")
    assert [stat.path for stat in swept.store.walk("contests")] == ["contests/figures.json"]


@pytest.mark.integration
def test_what_is_left_is_whole(swept: Swept) -> None:
    assert set_versions(swept.store, "c", "damaged") == []
    for name in ("default", "typed"):
        assert len(read_set(swept.store, "c", name).queries) == 8
    audits = read_audits(swept.store, "c")
    assert [audit.number for audit in audits] == [1, 2]
    assert all((alarm.figure, "removed" in alarm.message) == (0.1, True) for alarm in audits[1].alarms)
    assert len(audits[1].alarms) == len(SECRETS)
    texts = [one.text for one in read_answers(swept.store, "c", since=datetime(2020, 1, 1, tzinfo=UTC))]
    assert texts == [SHARED, SHARED, "what people ask"]
    failures = verify_snapshot(swept.store, "c").failures
    assert all("serving" in failure or "lexical" in failure for failure in failures)
    assert not swept.work.exists()


def test_the_oldest_audits_quote_nothing_any_more(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    folder = Path(__file__).parents[1] / "audit/records"
    for number, name in enumerate(("phrase_keys", "unopened"), start=1):
        store.write(f"collections/c/audits/{number:08d}.json", (folder / f"{name}.json").read_bytes())
    store.write("collections/c/audits/00000003.json", seal({"alarms": 5}))
    write_tombstone(store, "c", "forget", ("any",), "asked")
    assert b"title d00394 with is index" in store.read("collections/c/audits/00000001.json")
    removed, rewritten = list[str](), list[str]()
    forget_quotes(store, "c", removed, rewritten)
    assert (removed, rewritten) == (["collections/c/audits/00000003.json"], ["collections/c/audits/00000001.json"])
    assert b"title d0" not in store.read("collections/c/audits/00000001.json")
    forget_quotes(store, "c", removed, again := list[str]())
    assert again == []
    record, unopened = read_audits(store, "c")
    assert record.figures is not None
    assert record.figures.logged_queries is not None
    assert record.figures.logged_queries.count == 100
    assert unopened.figures is None


class TestQuotes:
    """The record of what a report quotes decides whether it stays."""

    @pytest.mark.parametrize(
        ("quotes", "gone"),
        [
            ([("a",)], True),
            ([("a", "b")], False),
            ([("b",), ("a",)], True),
            ([("a", "a2")], True),
            ([], False),
            ([("b",)], False),
        ],
    )
    def test_a_report_goes_when_nobody_else_has_what_it_quotes(self, tmp_path: Path, quotes, gone: bool) -> None:
        store = open_store(tmp_path)
        write_tombstone(store, "c", "forget", ("a", "a2"), "asked")
        page = Page("title", "outcome", "plain", (Section("first"), Section("second", quotes=tuple(quotes))))
        path = write_page(store, "r", page, collection="c")
        assert store.exists(path) is not gone
        assert (read_quotes(store, "r") is None) is gone
        assert plots_in(store, path) == {}

    def test_a_record_adds_to_what_the_report_quoted_before(self, tmp_path: Path) -> None:
        store = open_store(tmp_path)
        write_quotes(store, "r", "c", [("a",)])
        write_quotes(store, "r", "c", [("b", "c")])
        record = read_quotes(store, "r")
        assert record is not None
        assert record.quotes == {("a",), ("b", "c")}

    @pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", seal({"collection": "c"}), seal({"quotes": []})])
    def test_a_damaged_record_says_nothing(self, tmp_path: Path, data: bytes) -> None:
        store = open_store(tmp_path)
        store.write("reports/r/quotes.json", data)
        assert read_quotes(store, "r") is None

    def test_a_verdict_quotes_its_queries_and_names_the_documents_that_moved(self) -> None:
        change = QueryChange("q1", "a text", None, None, 0.5, 0.5, ("left", "both"), ("came",), ("answer", "another"))
        comparison = Comparison({}, {}, 1.0, 1.0, (change,), {})
        quotes = _changes(GateResult(None, comparison)).quotes
        assert set(quotes) == {("left",), ("both",), ("came",), ("another", "answer")}

    def test_groups_quote_the_documents_that_answer_their_queries(self) -> None:
        judged = {"q1": {"a": 1}, "q2": {"b": 2, "c": 0}, "q3": {}}
        known = EvaluationSet("s", "judged", dict.fromkeys(judged, "text"), judged, {"lang": {"q1": "en"}})
        groups = {"source": {"box": ["q1", "q2"], "none": ["q3"]}, "lang": {"en": ["q1"]}}
        assert quoted_groups(known, groups) == (("a", "b"),)
        assert quoted_groups(None, groups) == ()

    def test_a_map_quotes_the_labels_that_it_shows(self) -> None:
        labels, owners = ["x", "x", "x", "y", *"abcdefgh"], ["d1", "d2", "d1", "d3", *"stuvwxyz"]
        quotes = _labelled(labels, owners)
        assert quotes[0] == ("d1", "d2")
        assert len(quotes) == len(shown_labels(labels)) < len(set(labels))
        assert ("s",) in quotes
        assert ("z",) not in quotes

    def test_a_quote_names_only_some_of_many_documents(self) -> None:
        ((*holders,),) = quote_of(f"d{n}" for n in range(1000))
        assert 1 < len(holders) < 100
        assert quote_of([]) == ()
        assert names_of(["b", "a", "b"]) == (("a",), ("b",))


class TestLateWriters:
    """What is written by a process that began before the erasure is cleaned when it is written."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        store = open_store(tmp_path)
        write_tombstone(store, "c", "forget", ("gone",), "asked")
        return store

    def test_a_service_does_not_log_what_quotes_it(self, store: Store) -> None:
        log = AnswerLog(store, "c")
        log.add(answer("a quoted text", "d1", "gone"))
        log.add(answer("another text", "d1"))
        log.flush()
        assert [one.text for one in read_answers(store, "c", since=datetime(2020, 1, 1, tzinfo=UTC))] == [
            "another text"
        ]
        log.add(answer("a quoted text", "gone"))
        log.flush()
        assert len(list(store.walk("collections/c/answers"))) == 1

    def test_no_query_is_frozen_that_only_it_answers(self, store: Store) -> None:
        queries = {"q1": "its text", "q2": "its other text", "q3": "a text"}
        judged = {"q1": {"gone": 1}, "q2": {"gone": 1, "d1": 1}, "q3": {"gone": 0, "d1": 1}}
        freeze_set(store, "c", EvaluationSet("people", "judged", queries, judged), source="a file")
        assert set(read_set(store, "c", "people").queries) == {"q2", "q3"}
        freeze_set(store, "c", EvaluationSet("made", "pseudo", queries, judged | {"q3": {"d1": 1}}), source="corpus")
        assert set(read_set(store, "c", "made").queries) == {"q3"}
        with pytest.raises(ConfigError, match="has no queries"):
            freeze_set(store, "c", EvaluationSet("none", "pseudo", {"q1": "its text"}, judged), source="corpus")
