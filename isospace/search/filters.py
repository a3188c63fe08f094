"""Filters over the documents' metadata: `lang == "en" and year >= 2020`.

An expression is parsed with Python's grammar, restricted to a few node types, and evaluated on Arrow columns. It is
never executed, and never pasted into SQL. As in SQL, no comparison matches a document that lacks the field, not even
`!=` or a comparison under `not`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from isospace.errors import QueryError
from isospace.ingest.metadata_types import parse_moment
from isospace.search.filter_matches import contained, matches
from isospace.search.filter_words import in_python
from isospace.search.metadata import hidden_column, instants_column
from isospace.search.metadata_kinds import as_kind_of, as_lists, is_text

Mask = npt.NDArray[np.bool_]
_LONGEST, _DEEPEST = 2_000, 40
_COMPARISONS: dict[type[ast.cmpop], Callable[..., Any]] = {
    ast.Eq: pc.equal,
    ast.NotEq: pc.not_equal,
    ast.Lt: pc.less,
    ast.LtE: pc.less_equal,
    ast.Gt: pc.greater,
    ast.GtE: pc.greater_equal,
}
_TIMESTAMP = "a timestamp"
_EXAMPLE = (
    'such as lang == "en" and year >= 2020. Operators: == or =, !=, <, <=, >, >=, in, not in, like, contains, is null; '
    "joined by and, or, not"
)
# By what `filter_words` makes of them.
_MATCHES = (ast.MatMult, ast.FloorDiv, ast.RShift, ast.LShift)


@dataclass(frozen=True, slots=True)
class Filter:
    """A parsed filter: its text, and the checked expression."""

    text: str
    tree: ast.expr


def parse_filter(text: str, *, longest: int = _LONGEST) -> Filter:
    """Parse an expression.

    Parameters
    ----------
    text
        Comparisons (`==` or `=`, `!=`, `<`, `<=`, `>`, `>=`, `in`, `not in`, `is null`) of metadata fields with
        constants, `field like "pattern"`, and `field contains "value"`, joined by `and`, `or`, `not`. A field is
        written as its name, or as `meta["its name"]` if the name is not an identifier.
    longest
        Most characters.

    Raises
    ------
    QueryError
        If the expression cannot be parsed, or uses anything else.
    """
    if len(text) > longest:
        raise QueryError(f"filter of {len(text)} characters; expected at most {longest}.")
    try:
        tree = ast.parse(in_python(text.strip()), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        hint = "" if in_python(text) == text else ' A field that is called like an operator is written as meta["like"].'
        raise QueryError(f"filter {text[:80]!r}: {getattr(error, 'msg', error)}; expected {_EXAMPLE}.{hint}") from error
    _check(tree, text, _DEEPEST)
    return Filter(text, tree)


def apply_filter(chosen: Filter, documents: pa.Table) -> Mask:
    """Return an (n,) bool mask of the documents that pass the filter.

    Raises
    ------
    QueryError
        If a field is unknown, or compared with a value of another type.
    """
    try:
        result = _evaluate(chosen.tree, documents, chosen.text)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise QueryError(f"filter {chosen.text[:80]!r}: {str(error).splitlines()[0]}.") from error
    if not pa.types.is_boolean(result.type):
        raise QueryError(f"filter {chosen.text[:80]!r}: is a value, not a comparison; expected {_EXAMPLE}.")
    filled = pc.fill_null(result, False)
    mask: Mask = (filled.combine_chunks() if isinstance(filled, pa.ChunkedArray) else filled).to_numpy(
        zero_copy_only=False
    )
    return mask


def _check(node: ast.expr, text: str, depth: int) -> None:  # noqa: C901 - one case per allowed node
    """Refuse every node that is not listed here; the others can only compare."""
    if depth < 0:
        raise QueryError(f"filter {text[:80]!r}: nested more than {_DEEPEST} deep.")
    match node:
        case ast.BoolOp(values=children):
            pass
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            children = [operand]
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            children = [left, *comparators]
            if wrong := [op for op in ops if not isinstance(op, (*_COMPARISONS, ast.In, ast.NotIn, ast.Is, ast.IsNot))]:
                raise _unknown(wrong[0], text)
        case ast.BinOp(left=left, op=op, right=right) if isinstance(op, _MATCHES) and _is_constant(right):
            children = [left, right]
        case ast.List(elts=children) | ast.Tuple(elts=children):
            if not all(_is_constant(child) for child in children):
                raise QueryError(f"filter {text[:80]!r}: a list may hold only constants.")
        case ast.Subscript(value=ast.Name(id="meta"), slice=ast.Constant(value=str())) | ast.Name():
            children = []
        case _ if _is_constant(node):
            children = []
        case _:
            raise _unknown(node, text)
    for child in children:
        _check(child, text, depth - 1)


def _is_constant(node: ast.expr) -> bool:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return isinstance(node.operand, ast.Constant) and type(node.operand.value) in (int, float)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value.isprintable() or not any("\ud800" <= character <= "\udfff" for character in node.value)
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float | bool | None)


def _unknown(node: ast.AST, text: str) -> QueryError:
    return QueryError(
        f"filter {text[:80]!r}: {type(node).__name__} is not allowed; expected comparisons of fields with constants, "
        f"{_EXAMPLE}."
    )


def _evaluate(node: ast.expr, documents: pa.Table, text: str) -> Any:
    match node:
        case ast.BoolOp(op=op, values=values):
            join = pc.and_kleene if isinstance(op, ast.And) else pc.or_kleene
            result = _boolean(values[0], documents, text)
            for value in values[1:]:
                result = join(result, _boolean(value, documents, text))
            return result
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return pc.invert(_boolean(operand, documents, text))
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            sides = [(_term(side, documents, text), _moments(side, documents)) for side in (left, *comparators)]
            pairs = [
                _compare(op, *_as_moments(*pair), len(documents), text)
                for op, pair in zip(ops, pairwise(sides), strict=True)
            ]
            result = pairs[0]
            for pair in pairs[1:]:
                result = pc.and_kleene(result, pair)
            return result
        case ast.BinOp(left=left, op=op, right=right):
            field, wanted = _term(left, documents, text), _term(right, documents, text)
            found = _matching(op, field, wanted, len(documents), text)
            return pc.invert(found) if isinstance(op, ast.FloorDiv | ast.LShift) else found
        case _:
            result = _term(node, documents, text)
            if isinstance(result, pa.ChunkedArray):
                return result
            raise QueryError(f"filter {text[:80]!r}: {ast.unparse(node)[:40]} is a value, not a comparison.")


def _moments(node: ast.expr, documents: pa.Table) -> Any:
    """Return the instants of a field of timestamps, or of constants that are timestamps; None for anything else."""
    match node:
        case ast.Name(id=name) | ast.Subscript(slice=ast.Constant(value=str(name))):
            return _instants(name, documents, of_metadata=isinstance(node, ast.Subscript))
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            moments = [_moments(element, documents) for element in elements]
            return moments if moments and None not in moments else None
        case ast.Constant(value=str(constant)):
            return parse_moment(constant)
        case _:
            return None


def _instants(name: str, documents: pa.Table, *, of_metadata: bool) -> Any:
    known, hidden, instants = documents.column_names, hidden_column(name), instants_column(name)
    if hidden in known and not of_metadata:
        # The document's own column of that name, such as its title.
        return None
    if instants in known:
        return documents[instants]
    column = hidden if hidden in known else name
    is_declared = column in known and pa.types.is_timestamp(documents.schema.field(column).type)
    return documents[column] if is_declared else None


def _as_moments(left: tuple[Any, Any], right: tuple[Any, Any]) -> tuple[Any, Any]:
    """Return both sides of a comparison as instants if both are timestamps, one of them a field; else as they are."""
    is_moment = all(side[1] is not None for side in (left, right))
    if is_moment and any(isinstance(side[1], pa.ChunkedArray) for side in (left, right)):
        return left[1], right[1]
    return left[0], right[0]


def _boolean(node: ast.expr, documents: pa.Table, text: str) -> Any:
    result = _evaluate(node, documents, text)
    if not pa.types.is_boolean(result.type):
        raise QueryError(
            f"filter {text[:80]!r}: {ast.unparse(node)[:40]} is a value of type {result.type}, not a comparison."
        )
    return result


def _term(node: ast.expr, documents: pa.Table, text: str) -> Any:
    match node:
        case ast.Name(id=name):
            return _column(name, documents, text)
        case ast.Subscript(slice=ast.Constant(value=str(name))):
            hidden = hidden_column(name)
            return documents[hidden] if hidden in documents.column_names else _column(name, documents, text)
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            return [ast.literal_eval(element) for element in elements]
        case _ if _is_constant(node):
            return ast.literal_eval(node)
        case _:
            raise _unknown(node, text)


def _column(name: str, documents: pa.Table, text: str) -> pa.ChunkedArray:
    if name not in documents.column_names:
        known = ", ".join([field for field in documents.column_names if field.isprintable()][:20])
        raise QueryError(
            f"filter {text[:80]!r}: no document has the field {name!r}. Fields: {known}. Metadata comes from "
            "recipe.documents.metadata_columns."
        )
    return documents[name]


def _compare(op: ast.cmpop, left: Any, right: Any, rows: int, text: str) -> Any:
    if isinstance(op, ast.Is | ast.IsNot):
        if right is not None or not isinstance(left, pa.ChunkedArray):
            raise QueryError(f"filter {text[:80]!r}: `is` can only compare a field with None.")
        return pc.is_null(left) if isinstance(op, ast.Is) else pc.is_valid(left)
    if isinstance(op, ast.In | ast.NotIn):
        result = _contained(left, right, rows, text)
        return result if isinstance(op, ast.In) else pc.invert(result)
    if isinstance(left, list) or isinstance(right, list) or left is None or right is None:
        raise QueryError(f"filter {text[:80]!r}: compare with a list by `in`, and with None by `is`.")
    if not any(isinstance(side, pa.ChunkedArray) for side in (left, right)):
        raise QueryError(f"filter {text[:80]!r}: compares two constants; one side must be a field.")
    left, right = _alike(left, right)
    _require_alike(left, right, text)
    try:
        return _COMPARISONS[type(op)](left, right)
    except (pa.ArrowException, TypeError, OverflowError) as error:
        raise QueryError(f"filter {text[:80]!r}: {str(error).splitlines()[0]}.") from error


def _contained(left: Any, right: Any, rows: int, text: str) -> Any:
    if isinstance(left, pa.ChunkedArray) and isinstance(right, list):
        left = as_kind_of(left, right[0]) if right else left
        for value in right:
            _require_alike(left, value, text)
        try:
            result = pc.is_in(left, value_set=pa.array(right, left.type))
        except (pa.ArrowException, TypeError, OverflowError) as error:
            raise QueryError(f"filter {text[:80]!r}: {str(error).splitlines()[0]}.") from error
        # A missing field is neither in nor out.
        return pc.if_else(pc.is_valid(left), result, pa.scalar(None, pa.bool_()))
    if isinstance(right, pa.ChunkedArray) and isinstance(left, str):
        right = as_lists(right)
    if isinstance(right, pa.ChunkedArray) and pa.types.is_list(right.type) and isinstance(left, str | int | float):
        _require_alike(pa.chunked_array([right.combine_chunks().flatten()]), left, text)
        return contained(left, right, rows)
    raise QueryError(f'filter {text[:80]!r}: `in` needs field in ["a", "b"], or "a" in a field that holds lists.')


def _matching(op: ast.operator, field: Any, wanted: Any, rows: int, text: str) -> Any:
    """Return where a field is like a pattern, or contains a value: an item of its list, or a part of its text."""
    if not isinstance(field, pa.ChunkedArray):
        raise QueryError(f"filter {text[:80]!r}: `like` and `contains` need a field on the left.")
    if isinstance(op, ast.RShift | ast.LShift):
        lists = as_lists(field) if isinstance(wanted, str) else field
        if pa.types.is_list(lists.type):
            return _contained(wanted, lists, rows, text)
    if not isinstance(wanted, str) or not is_text(field):
        raise QueryError(
            f"filter {text[:80]!r}: `like` compares a field of texts with a text, and `contains` a field of texts or "
            f"lists; the field is of type {field.type}."
        )
    return matches(field, wanted, as_pattern=isinstance(op, ast.MatMult | ast.FloorDiv))


def _alike(left: Any, right: Any) -> tuple[Any, Any]:
    """Return a field of texts by the values that have the type of the constant on the other side."""
    if isinstance(left, pa.ChunkedArray) and not isinstance(right, pa.ChunkedArray):
        return as_kind_of(left, right), right
    if isinstance(right, pa.ChunkedArray) and not isinstance(left, pa.ChunkedArray):
        return left, as_kind_of(right, left)
    return left, right


def _require_alike(left: Any, right: Any, text: str) -> None:
    """Refuse to compare a text with a number: no cast would be right."""
    kinds = {_kind(side) for side in (left, right)}
    if len(kinds) > 1:
        shown = " with ".join(sorted(kinds))
        example = ', such as "2024-05-31" or "2024-05-31T12:00+02:00"' if _TIMESTAMP in kinds else ""
        raise QueryError(
            f"filter {text[:80]!r}: compares {shown}. Write the constant in the type of the field{example}."
        )


def _kind(side: Any) -> str:
    if isinstance(side, pa.ChunkedArray):
        if pa.types.is_boolean(side.type) or pa.types.is_timestamp(side.type):
            return "a boolean" if pa.types.is_boolean(side.type) else _TIMESTAMP
        is_text = pa.types.is_string(side.type) or pa.types.is_large_string(side.type)
        return "a text" if is_text else "a number" if pa.types.is_primitive(side.type) else str(side.type)
    if isinstance(side, bool | datetime):
        return "a boolean" if isinstance(side, bool) else _TIMESTAMP
    return "a text" if isinstance(side, str) else "a number"
