"""The visible text of an HTML page, block by block, as it stands in the page.

Blocks are joined by white space alone, after the `innerText` algorithm of the HTML standard
(https://html.spec.whatwg.org/multipage/dom.html#the-innertext-idl-attribute): a tab between the cells of a row, a new
line between lines, an empty line between paragraphs. Two empty lines precede a heading, so that a chunk can begin
there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

# Elements without visible text: never rendered, shown only if something else fails, or drawn instead of written.
HIDDEN_TAGS = frozenset(
    [
        "applet",
        "area",
        "audio",
        "canvas",
        "datalist",
        "embed",
        "frame",
        "head",
        "iframe",
        "map",
        "noembed",
        "noframes",
        "noscript",
        "script",
        "select",
        "style",
        "svg",
        "template",
        "title",
        "track",
        "video",
        "annotation",
        "annotation-xml",
        "link",
        "meta",
        "param",
        "source",
    ]
)
# Those of them whose text somebody wrote to be read.
_HIDDEN_TEXT = frozenset(("noembed", "noscript", "template"))
_CODE = frozenset(("script", "style"))
HEADINGS = frozenset(("h1", "h2", "h3", "h4", "h5", "h6"))
_TAB, _LINE, _PARAGRAPH, _SECTION = 1, 2, 3, 4
_SEPARATORS = {_TAB: "\t", _LINE: "\n", _PARAGRAPH: "\n\n", _SECTION: "\n\n\n"}
_LEVELS = (
    dict.fromkeys(["td", "th"], _TAB)
    | dict.fromkeys(
        [
            "address",
            "article",
            "aside",
            "body",
            "caption",
            "center",
            "dd",
            "details",
            "dialog",
            "dir",
            "div",
            "dt",
            "fieldset",
            "figcaption",
            "footer",
            "form",
            "header",
            "hgroup",
            "html",
            "legend",
            "li",
            "listing",
            "main",
            "menuitem",
            "nav",
            "option",
            "optgroup",
            "search",
            "section",
            "summary",
            "tbody",
            "tfoot",
            "thead",
            "tr",
            "xmp",
        ],
        _LINE,
    )
    | dict.fromkeys(
        ["blockquote", "dl", "figure", "hr", "menu", "ol", "p", "pre", "table", "textarea", "ul", "plaintext"],
        _PARAGRAPH,
    )
    | dict.fromkeys(HEADINGS, _SECTION)
)
# A paragraph or a list in one of these is not set off by empty lines.
_WRAPPED = {"td": _TAB, "th": _TAB, "li": _LINE, "dd": _LINE, "dt": _LINE, "caption": _LINE, "figcaption": _LINE}
_LISTS = frozenset(("ul", "ol", "menu", "dir"))
_PREFORMATTED = frozenset(("pre", "textarea", "listing", "xmp", "plaintext"))
# White space that HTML collapses: a no-break space is none.
_SPACE = re.compile(r"[ \t\n\r\f]+")
_BREAK = "\x00"
_AROUND_BREAK = re.compile(f" ?{_BREAK} ?")
_NOT_SHOWN = re.compile(r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse))", re.IGNORECASE)
# Links to the heading itself, which pages show only under the mouse.
_PERMALINKS = frozenset("¶#§🔗")
_INVISIBLE = " \t\r\n\u200b\ufe0e\ufe0f"


@dataclass(slots=True)
class Block:
    """A run of text without a line between its beginning and its end, other than those of `br` or `pre`.

    Attributes
    ----------
    element
        The innermost element of block level around it.
    before
        How strongly it is separated from the block before it.
    is_button
        Whether it is only a control, rather than a sentence that names one.
    places
        The nodes that hold its text: an element, and whether the text is inside it or behind it.
    prose
        Characters outside links and buttons, without white space.
    """

    element: Any
    before: int
    is_preformatted: bool
    places: list[tuple[Any, Literal["text", "tail"]]] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    prose: int = 0
    is_button: bool = True

    @property
    def text(self) -> str:
        """The text as the page shows it."""
        joined = "".join(self.pieces)
        if self.is_preformatted:
            return joined.replace(_BREAK, "\n").strip("\n").rstrip()
        return _AROUND_BREAK.sub("\n", _SPACE.sub(" ", joined)).strip(" \n")


def visible_blocks(root: Any) -> list[Block]:
    """Return the blocks of a page in their order, without those that have no text.

    Parameters
    ----------
    root
        An lxml element, without comments and processing instructions.
    """
    return [block for block in _Walk().blocks(root) if block.text]


def hidden_size(root: Any) -> int:
    """Return the characters, without white space, of the text that a page has and does not show.

    Scripts, style sheets, drawings, controls, and what stands in for media are no text.
    """
    from lxml import etree

    size, walk = 0, etree.iterwalk(root, events=("start",))
    for _, element in walk:
        tag = _name(element)
        if _is_hidden(element, tag):
            walk.skip_subtree()
            if tag not in HIDDEN_TAGS - _HIDDEN_TEXT and tag != "a":
                size += len("".join("".join(_own_text(element)).split()))
    return size


def _own_text(element: Any) -> Iterator[str]:
    """Yield the texts in an element, except for scripts and style sheets."""
    for one in element.iter():
        if _name(one) not in _CODE and one.text:
            yield one.text
        if one is not element and one.tail:
            yield one.tail


def join_blocks(blocks: Iterable[tuple[Block, bool]]) -> tuple[str, list[int]]:
    """Return the text of the wanted blocks, and where each of these begins in it.

    What separates two of them is the strongest separator between them.
    """
    parts: list[str] = []
    starts: list[int] = []
    pending = length = 0
    for block, is_wanted in blocks:
        pending = max(pending, block.before)
        if is_wanted:
            separator = _SEPARATORS.get(pending, " ") if parts else ""
            starts.append(length + len(separator))
            parts += [separator, block.text]
            length = starts[-1] + len(parts[-1])
            # Headings are followed by what they are about.
            pending = 0
    return "".join(parts), starts


def heading_around(block: Block) -> tuple[Any, int] | None:
    """Return the element `h1` to `h6` that a block is in, and its level; None if there is none."""
    lineage = (block.element, *block.element.iterancestors())
    return next(((one, int(name[1])) for one in lineage if (name := _name(one)) in HEADINGS), None)


class _Walk:
    """The state of one walk over a page."""

    def __init__(self) -> None:
        self.pending = 0
        self.current: Block | None = None
        self.preformatted = self.buttons = self.links = 0
        self.containers: list[Any] = []

    def blocks(self, root: Any) -> Iterator[Block]:
        """Yield the blocks below an element."""
        from lxml import etree

        walk = etree.iterwalk(root, events=("start", "end"))
        for event, element in walk:
            tag = _name(element)
            level = _level(element, tag)
            if event == "start":
                if level:
                    yield from self._close(level)
                self._enter(element, tag, level)
                if _is_hidden(element, tag):
                    walk.skip_subtree()
                elif element.text:
                    self._add(element, "text", element.text)
                continue
            self._leave(element, tag, level)
            if level:
                yield from self._close(min(level, _PARAGRAPH))
            if element.tail and element is not root:
                self._add(element, "tail", element.tail)
        yield from self._close(_LINE)

    def _enter(self, element: Any, tag: str, level: int) -> None:
        if level:
            self.containers.append(element)
        self.preformatted += tag in _PREFORMATTED
        self.buttons += tag == "button"
        self.links += _is_link(element, tag)
        if tag == "br":
            self._block(element).pieces.append(_BREAK)

    def _leave(self, element: Any, tag: str, level: int) -> None:
        if level:
            self.containers.pop()
        self.preformatted -= tag in _PREFORMATTED
        self.buttons -= tag == "button"
        self.links -= _is_link(element, tag)

    def _block(self, element: Any) -> Block:
        if self.current is None:
            container = self.containers[-1] if self.containers else element
            self.current = Block(container, self.pending, self.preformatted > 0)
        return self.current

    def _add(self, element: Any, place: Literal["text", "tail"], text: str) -> None:
        if self.current is None and not text.strip() and not self.preformatted:
            return
        block = self._block(element)
        block.pieces.append(text.replace(_BREAK, ""))
        if text.strip():
            block.places.append((element, place))
            block.is_button &= self.buttons > 0
            block.prose += 0 if self.buttons or self.links else len("".join(text.split()))

    def _close(self, level: int) -> Iterator[Block]:
        if self.current is not None and self.current.places:
            yield self.current
            self.pending = 0
        self.current = None
        self.pending = max(self.pending, level)


def _name(element: Any) -> str:
    return element.tag.rpartition("}")[2].lower() if isinstance(element.tag, str) else ""


def _is_link(element: Any, tag: str) -> bool:
    """Return whether an element leads elsewhere, and is no anchor, and no link of a heading to itself."""
    target = element.get("href") if tag == "a" else None
    if not target:
        return False
    parent = element.getparent()
    return not (target.startswith("#") and parent is not None and _name(parent) in HEADINGS)


def _level(element: Any, tag: str) -> int:
    level = _LEVELS.get(tag, 0)
    parent = element.getparent() if tag == "p" or tag in _LISTS else None
    if parent is None or (wrapped := _WRAPPED.get(_name(parent))) is None:
        return level
    return wrapped if tag == "p" and len(parent) == 1 else _LINE


def _is_hidden(element: Any, tag: str) -> bool:
    """Return whether a page does not show an element, whatever its script does; a tab that is not in front is shown."""
    if tag in HIDDEN_TAGS or not tag:
        return True
    if tag == "a" and "#" in (element.get("href") or ""):
        return "".join(element.itertext()).strip(_INVISIBLE) in _PERMALINKS
    if tag == "dialog":
        return element.get("open") is None
    is_hidden = element.get("hidden") not in (None, "until-found") or _NOT_SHOWN.search(element.get("style") or "")
    return bool(is_hidden) and element.get("role") != "tabpanel"
