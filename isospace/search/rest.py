"""The rows that a further search of one query is for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isospace.search.vector.topk import Rows


@dataclass(frozen=True, slots=True, eq=False)
class Rest:
    """What is left after a search.

    Attributes
    ----------
    found
        int64 rows that were found already.
    documents
        int64 numbers of documents, as `View.documents_of` returns them.
    is_among
        Whether rows of these documents are searched, or of all others.
    """

    found: Rows
    documents: Rows
    is_among: bool

    def rows(self, owners: npt.NDArray[np.integer], live: npt.NDArray[np.bool_] | None) -> Rows:
        """Return the ascending int64 live rows, given the (n,) document of each row."""
        is_left = np.isin(owners, self.documents, invert=not self.is_among)
        is_left[self.found] = False
        return np.flatnonzero(is_left if live is None else is_left & live).astype(np.int64)
