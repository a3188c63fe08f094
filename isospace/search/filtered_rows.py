"""The rows that pass filters and scopes."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from isospace.search.vector.topk import Rows


class FilteredRows:
    """The rows that pass filters and scopes, with those asked for last kept: a service asks for the same again.

    Parameters
    ----------
    owners
        (n,) row of `documents` of each row.
    live
        (n,) False for rows that are never found; None if there are none.
    documents
        A typed column for each metadata field.
    """

    def __init__(
        self, owners: npt.NDArray[np.integer], live: npt.NDArray[np.bool_] | None, documents: pa.Table
    ) -> None:
        self._owners, self._live = owners, live
        self._documents = documents.drop_columns([name for name in ("metadata",) if name in documents.column_names])
        self._filter = functools.lru_cache(maxsize=16)(self._by_filter)
        self._scope = functools.lru_cache(maxsize=64)(self._by_scope)
        self.rows = functools.lru_cache(maxsize=16)(self._rows)

    def _rows(self, expression: str | None, scope: str | None) -> Rows:
        # The scope first: what it says of a wrong filter is nothing.
        masks = [self._scope(scope)] if scope is not None else []
        masks += [self._filter(expression)] if expression is not None else []
        passed = np.logical_and.reduce(masks)[self._owners]
        return np.flatnonzero(passed if self._live is None else passed & self._live).astype(np.int64)

    def _by_filter(self, expression: str) -> npt.NDArray[np.bool_]:
        # With pyarrow.compute, which takes longer to import than most queries take.
        from isospace.search.filters import apply_filter, parse_filter

        return apply_filter(parse_filter(expression), self._documents)

    def _by_scope(self, scope: str) -> npt.NDArray[np.bool_]:
        from isospace.search.scope import documents_in_scope

        return documents_in_scope(scope, self._documents)
