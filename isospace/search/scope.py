"""What a caller may see: a filter that the service adds to every search, with the claims of a token in it.

    tenant == $tenant and group in $groups

A claim becomes a constant of the parsed expression. It is never pasted into its text, so that no claim can change what
the filter says.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping

import pyarrow as pa

from isospace.errors import QueryError, ScopeError
from isospace.search.filter_words import QUOTED, in_python
from isospace.search.filters import Mask, apply_filter, parse_filter
from isospace.search.options import LONGEST_SCOPE

_PARTS = re.compile(QUOTED + r"|\$([A-Za-z_]\w*)", re.DOTALL)
# What a field cannot be called in a template, since names of claims are put there.
_CLAIM = "claim__"
Claim = str | int | float | bool


def claims_in(template: str) -> set[str]:
    """Return the names of the claims that a template refers to."""
    return {match[1] for match in _PARTS.finditer(template) if match[1]}


def check_template(template: str) -> None:
    """Parse a template.

    Raises
    ------
    QueryError
        If it is not a filter in which claims stand for constants and lists, or if it has `contains`, or a claim as the
        pattern of `like`.
    """
    if _CLAIM in template:
        raise QueryError(f"filter {template[:80]!r}: {_CLAIM} is reserved. Rename the field.")
    # As a list or as a text: a comparison takes either, and what the claim is shows with the token.
    parse_filter(_filled(template, {name: ["text"] for name in claims_in(template)}), longest=LONGEST_SCOPE)


def bind_claims(template: str, claims: Mapping[str, object]) -> str:
    """Return the filter of a template with the claims of a token as constants.

    Raises
    ------
    ScopeError
        If a claim is missing, or is neither a text, a number, a boolean, nor a list of these.
    """
    values: dict[str, Claim | list[Claim]] = {}
    for name in claims_in(template):
        value = claims.get(name)
        if isinstance(value, list) and all(_is_claim(one) for one in value):
            values[name] = list(value)
        elif isinstance(value, str | int | float | bool) and _is_claim(value):
            values[name] = value
        else:
            found = "has none" if value is None else f"has {type(value).__name__}"
            raise ScopeError(
                f"the token needs a claim {name!r} with a text, a number, a boolean, or a list of these; it {found}."
            )
    try:
        bound = _filled(template, values)
        parse_filter(bound, longest=LONGEST_SCOPE)
    except QueryError as error:
        raise ScopeError("the claims of the token make no filter; see the log.") from error
    return bound


def documents_in_scope(scope: str, documents: pa.Table) -> Mask:
    """Return an (n,) bool mask of the documents that pass a scope.

    Raises
    ------
    ScopeError
        If it cannot be applied, for instance because no document has a field: nothing may be shown then.
    """
    try:
        parsed = parse_filter(scope, longest=LONGEST_SCOPE)
        _require_plain(parsed.tree, scope)
        return apply_filter(parsed, documents)
    except QueryError as error:
        # The caller learns neither the filter nor the fields of documents that it may not see.
        raise ScopeError(
            "what this caller may see cannot be told from the snapshot, so that nothing is shown; see the log."
        ) from error


def _is_claim(value: object) -> bool:
    return isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value))


def _filled(template: str, values: Mapping[str, Claim | list[Claim]]) -> str:
    """Return the text of the parsed template with constants for its claims."""
    named = in_python(_PARTS.sub(lambda match: f"{_CLAIM}{match[1]}" if match[1] else match[0], template.strip()))
    try:
        tree = ast.parse(named, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise QueryError(f"filter {template[:80]!r}: {getattr(error, 'msg', error)}.") from error
    _require_plain(tree, template)
    return ast.unparse(_Filling(values).visit(tree))


def _require_plain(tree: ast.AST, template: str) -> None:
    """Refuse what would show more when the documents or the claims change."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.BinOp):
            continue
        if isinstance(node.op, ast.RShift | ast.LShift):
            # It means items of lists or parts of texts, by what the documents of the day hold.
            raise QueryError(
                f'filter {template[:80]!r}: `contains` cannot tell what may be seen; write "value" in field for lists, '
                "and `like` for texts."
            )
        if isinstance(node.right, ast.Name):
            raise QueryError(
                f"filter {template[:80]!r}: a claim cannot be the pattern of `like`, since it may hold `%`; compare it "
                "with == or in."
            )


class _Filling(ast.NodeTransformer):
    def __init__(self, values: Mapping[str, Claim | list[Claim]]) -> None:
        self.values = values

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if not node.id.startswith(_CLAIM):
            return node
        value = self.values[node.id.removeprefix(_CLAIM)]
        if isinstance(value, list):
            return ast.List([ast.Constant(one) for one in value], ast.Load())
        return ast.Constant(value)
