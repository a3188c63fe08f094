"""Read the front matter of a Markdown file: YAML between `---`, TOML between `+++`, or a JSON object."""

from __future__ import annotations

import datetime
import json
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import yaml

from isospace.ingest.document import MAX_METADATA_DEPTH, is_unicode

# Longer front matter is a document of its own, and YAML parsers are slow.
_MAX_CHARACTERS, _MAX_SEARCHED = 60_000, 1_000_000
# A few aliases of YAML can stand for billions of values.
_MAX_VALUES = 10_000
_MAX_LISTS = 1_000
# Python writes no number of more than 4,300 digits; one of so many is an identifier.
_MAX_DIGITS = 1_000
_NESTED = re.compile(rf"(?:[\[{{]\s*){{{MAX_METADATA_DEPTH + 1},}}")
_YAML = re.compile(r"---[ \t]*\n(.*?)^(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_TOML = re.compile(r"\+\+\+[ \t]*\n(.*?)^\+\+\+[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_TOML_KEY = r"(?:[\w-]++|\"[^\"\n]*+\"|'[^'\n]*+')"
# Each part of a dotted key is a table; the parser takes quadratic time for them.
_TOML_NESTED = re.compile(
    rf"(?:^|[\[{{,])[ \t]*+(?:{_TOML_KEY}[ \t]*+\.[ \t]*+){{{MAX_METADATA_DEPTH + 1}}}", re.MULTILINE
)
# How front matter begins. A rule at the start of a text can be one between its parts as well.
_BEGINNINGS = (
    (_YAML, re.compile(r"---[ \t]*\n(?:[ \t]*(?:#[^\n]*)?\n)*+[\"']?[\w.-]+[\"']?[ \t]*:(?:\s|\Z)")),
    (_TOML, re.compile(r"\+\+\+[ \t]*\n(?:[ \t]*(?:#[^\n]*)?\n)*+[ \t]*(?:\[|[\w.\"'-]+[ \t]*=)")),
)


@dataclass(frozen=True, slots=True)
class FrontMatter:
    """The front matter of a file.

    Attributes
    ----------
    values
        JSON values by name; empty if it cannot be parsed.
    title
        As it is written, also if YAML would read it as a number, a date, or a boolean. Empty if there is none.
    end
        Where the text behind it begins; 0 if there is no front matter.
    problem
        Why it cannot be parsed; empty if it can.
    """

    values: dict[str, object] = field(default_factory=dict)
    title: str = ""
    end: int = 0
    problem: str = ""


def read_front_matter(text: str) -> FrontMatter:
    """Return the front matter at the start of a text with unified line ends."""
    head = text[:_MAX_CHARACTERS]
    if match := _YAML.match(head):
        return _parsed(_yaml_values, "YAML", match[1], match.end())
    if match := _TOML.match(head):
        return _parsed(_toml_values, "TOML", match[1], match.end())
    if head.startswith("{"):
        return _json_front_matter(text)
    return _too_long(text[:_MAX_SEARCHED]) if len(text) > _MAX_CHARACTERS else FrontMatter()


def _too_long(text: str) -> FrontMatter:
    """Return what is said of long front matter; none if it does not look like one, or has no end."""
    for whole, beginning in _BEGINNINGS:
        if beginning.match(text) and (match := whole.match(text)):
            return FrontMatter(end=match.end(), problem=_excess(match.end()))
    return FrontMatter()


def _excess(size: int) -> str:
    return f"has {size:,} characters; expected at most {_MAX_CHARACTERS:,}"


def _parsed(parse: Callable[[str], tuple[Any, str]], kind: str, body: str, end: int) -> FrontMatter:
    try:
        values, title = parse(body)
        # Two rules with other text between them are not front matter.
        return _front_matter(values, title, end) if isinstance(values, dict) else FrontMatter()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # The first line of a YAML error says what was being parsed, the second what was found.
        reason = str(getattr(error, "problem", None) or error).split("\n", 1)[0][:120]
        return FrontMatter(end=end, problem=f"is not {kind} ({reason})")


def _json_front_matter(text: str) -> FrontMatter:
    try:
        values, end = json.JSONDecoder(parse_int=_integer).raw_decode(text)
    except (ValueError, RecursionError):
        # Ordinary text may begin with a brace.
        return FrontMatter()
    if not isinstance(values, dict) or not re.match(r"[ \t]*\n", text[end : end + 1_000]):
        return FrontMatter()
    if end > _MAX_CHARACTERS:
        return FrontMatter(end=end, problem=_excess(end))
    try:
        return _front_matter(values, _scalar(values.get("title")), end)
    except ValueError as error:
        return FrontMatter(end=end, problem=f"cannot be kept ({error})")


def _front_matter(values: dict[Any, Any], title: str, end: int) -> FrontMatter:
    kept = _json_values(values)
    title = _joined(title)
    return FrontMatter({**kept, "title": title.strip()} if title else kept, title, end)


def _toml_values(body: str) -> tuple[Any, str]:
    if _TOML_NESTED.search(body):
        raise ValueError(f"it nests more than {MAX_METADATA_DEPTH} deep")
    values = tomllib.loads(body)
    return values, _scalar(values.get("title"))


def _yaml_values(body: str) -> tuple[Any, str]:
    if _NESTED.search(body) or body.count("[") + body.count("{") > _MAX_LISTS:
        # The parser takes seconds to find out.
        raise ValueError(f"it nests more than {MAX_METADATA_DEPTH} deep, or has more than {_MAX_LISTS:,} lists")
    loader = _CoreLoader(body)
    try:
        node = loader.get_single_node()
        if node is None:
            return {}, ""
        values = loader.construct_document(node)
    except (LookupError, AttributeError, TypeError, OverflowError) as error:
        # The constructors of the library raise whatever a conversion does.
        raise ValueError("a value does not fit its tag") from error
    finally:
        loader.dispose()
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    titles = [value for key, value in pairs if key.value == "title" and isinstance(value, yaml.ScalarNode)]
    # The node has the text before it is read as a number, a date, or null.
    is_null = bool(titles) and titles[-1].tag == "tag:yaml.org,2002:null"
    return values, "" if is_null or not titles else str(titles[-1].value)


class _CoreLoader(yaml.SafeLoader):
    """Resolve values by the core schema of YAML 1.2 (section 10.3.2), where `no` is text and `1:30` is not 90.

    Dates stay text as well, since they sort and compare as they are written, and so does a number with a leading zero,
    as in the JSON schema of YAML (section 10.2), since it is a code.
    """

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - a class attribute of the library


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
):
    _CoreLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first)


def _construct_int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int | str:
    return _integer(str(loader.construct_scalar(node)))


def _integer(text: str) -> int | str:
    """Return a number as it is written; one of too many digits stays text."""
    if len(text) > _MAX_DIGITS:
        return text
    base = {"0o": 8, "0x": 16}.get(text[:2])
    return int(text[2:], base) if base else int(text)


def _construct_float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    return float(str(loader.construct_scalar(node)))


def _construct_unknown(loader: yaml.SafeLoader, node: yaml.Node) -> object:
    """Read a value with a tag of some application, such as `!ENV`, as if it had none."""
    if isinstance(node, yaml.ScalarNode):
        return loader.construct_scalar(node)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_mapping(cast("yaml.MappingNode", node), deep=True)


_CoreLoader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_CoreLoader.add_constructor("tag:yaml.org,2002:float", _construct_float)
_CoreLoader.add_constructor(None, _construct_unknown)


def _scalar(value: object) -> str:
    return "" if value is None or isinstance(value, dict | list | bool) else str(value)


def _json_values(values: dict[Any, Any]) -> dict[str, object]:
    """Return values as JSON can hold them.

    Raises
    ------
    ValueError
        If they nest too deeply, or if there are too many of them.
    """
    budget = [_MAX_VALUES]
    return {_name(name): _json_value(value, budget, MAX_METADATA_DEPTH) for name, value in values.items()}


def _json_value(value: Any, budget: list[int], levels: int) -> object:
    budget[0] -= 1
    if budget[0] < 0:
        raise ValueError(f"it stands for more than {_MAX_VALUES:,} values")
    if levels < 0:
        raise ValueError(f"it nests more than {MAX_METADATA_DEPTH} deep")
    match value:
        case dict():
            return {_name(name): _json_value(item, budget, levels - 1) for name, item in value.items()}
        case list() | tuple() | set():
            return [_json_value(item, budget, levels - 1) for item in value]
        case datetime.date() | datetime.time():
            return value.isoformat()
        case float() if value != value or abs(value) == float("inf"):
            return None
        case bytes():
            return value.decode("utf-8", "replace")
        case str():
            return _joined(value)
        case int() if value.bit_length() > 3 * _MAX_DIGITS:
            return hex(value)
        case _:
            return value


def _name(key: Any) -> str:
    return hex(key) if isinstance(key, int) and key.bit_length() > 3 * _MAX_DIGITS else _joined(str(key))


def _joined(text: str) -> str:
    """Join pairs of surrogates, as which the escapes of JSON, and so those of YAML, write a character such as emoji."""
    return text if is_unicode(text) else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
