"""Write a report as a self-contained HTML page, and as JSON."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from isospace import __version__
from isospace.errors import ConfigError, missing_package
from isospace.evaluation.reports.quotes import Heading, Quote, remove_if_forgotten, write_quotes
from isospace.evaluation.reports.quotes import Tone as Tone
from isospace.storage import paths as layout
from isospace.storage.hashing import canonical_json
from isospace.storage.store import Store

# Sections whose plots are shown elsewhere, too.
SIMILARITIES, MAP, CHUNK_LENGTHS = "Random pairs and nearest neighbors", "Map of the corpus", "Lengths of chunks"
_PLOT = re.compile(r'<figure role="img" aria-label="([^"]*)">(<svg.*?</svg>)', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Table:
    """A table of texts; `tones` has the color of each row, or is empty."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    tones: tuple[Tone, ...] = ()


@dataclass(frozen=True, slots=True)
class Section:
    """A section of a report: heading, text, a plot (SVG, from `plots`), and the table behind it.

    `quotes` lists the documents that the section quotes or names.
    """

    title: str
    text: str = ""
    plot: str | None = None
    table: Table | None = None
    quotes: tuple[Quote, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """A report.

    Attributes
    ----------
    outcome
        The result in a sentence.
    tone
        Color of the outcome.
    data
        The same content for machines. It quotes and names no documents other than those of the sections.
    links
        Texts and relative addresses of other reports.
    may_quote_more
        Whether it holds text that may quote any document, such as messages of failures: every erasure removes it.
    """

    title: str
    outcome: str
    tone: Tone
    sections: tuple[Section, ...]
    data: dict[str, Any] = field(default_factory=dict)
    links: tuple[tuple[str, str], ...] = ()
    may_quote_more: bool = False


def render(page: Page) -> str:
    """Return a page as HTML; everything except plots is escaped.

    Raises
    ------
    ConfigError
        If Jinja is missing.
    """
    try:
        from jinja2 import Environment
    except ModuleNotFoundError as error:
        raise ConfigError(missing_package("jinja2", "a report")) from error
    source = files("isospace.evaluation.reports").joinpath("page.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(source).render(page=page, version=__version__)


def write_page(store: Store, run_id: str, page: Page, *, collection: str, with_json: bool = True) -> str:
    """Write a report as a page, and as JSON if `with_json`; return the path of the page.

    The documents that it quotes are recorded first. If one was forgotten meanwhile, the report is removed again.
    """
    path = layout.report_page(run_id)
    quotes = [quote for section in page.sections for quote in section.quotes]
    heading = Heading(page.title, page.outcome, page.tone)
    write_quotes(store, run_id, collection, quotes, heading, may_quote_more=page.may_quote_more)
    store.write(path, render(page).encode("utf-8", errors="backslashreplace"))
    if with_json:
        store.write(layout.report(run_id), canonical_json({"title": page.title, "outcome": page.outcome, **page.data}))
    remove_if_forgotten(store, run_id, collection)
    return path


def plots_in(store: Store, path: str) -> dict[str, str]:
    """Return the plots of a page that `write_page` wrote, by section title; none if the page was removed again."""
    if not store.exists(path):
        return {}
    page = store.read(path).decode("utf-8")
    return {html.unescape(title): svg for title, svg in _PLOT.findall(page)}


def duration(seconds: float) -> str:
    """Format a duration: 0.4 s, 40 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 10.0:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def figure(value: object) -> str:
    """Format a value for people."""
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4g}" if abs(value) < 1e-3 or abs(value) >= 1e4 else f"{value:.4f}"
        case int():
            return f"{value:,}"
        case tuple() | list():
            return " to ".join(figure(part) for part in value)
        case _:
            return str(value)
