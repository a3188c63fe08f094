"""A snapshot that is searched in its store, without a local copy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from isospace.errors import QueryError
from isospace.search.hits import Ranking, Visits
from isospace.search.options import SearchOptions
from isospace.search.remote.cells import RemoteCells
from isospace.search.vector.topk import Rows
from isospace.search.view import View
from isospace.transform.vectors import Float32

_NO_SPARSE = (
    "sparse vectors are not published, so that they cannot be searched without a local copy. Search with "
    'sparse_weight = 0 or another mode, or open the index with a local copy (local="copy").'
)


@dataclass(frozen=True, eq=False, kw_only=True)
class RemoteView(View):
    """A snapshot that is searched in its store; immutable.

    Attributes
    ----------
    cells
        The published codes, those from which scores are computed.
    """

    cells: RemoteCells

    @property
    def has_cells(self) -> bool:
        """Whether approximate searches are possible."""
        return self.cells.quantizer is not None

    def _by_words(self, texts: Sequence[str], count: int, rows: Rows | None) -> list[Ranking]:
        if self.word_rules is None:
            raise QueryError(
                f"snapshot {self.manifest.sequence} was published without words. If it has a lexical index, run "
                "isospace publish; else set recipe.lexical.kind=bm25, and run the pipeline."
            )
        return super()._by_words(texts, count, rows)

    def _by_terms(self, texts: Sequence[str], count: int, rows: Rows | None) -> list[Ranking]:
        raise QueryError(_NO_SPARSE)

    def _legs(
        self,
        texts: Sequence[str],
        vectors: Float32,
        count: int,
        rows: Rows | None,
        options: SearchOptions,
        *,
        keep: bool,
    ) -> tuple[dict[str, tuple[list[Ranking], float]], Visits]:
        if self.manifest.sparse_space_id is not None and options.uses_sparse:
            raise QueryError(_NO_SPARSE)
        return super()._legs(texts, vectors, count, rows, options, keep=keep)

    def _near(
        self, vectors: Float32, count: int, rows: Rows | None, options: SearchOptions, *, keep: bool
    ) -> tuple[list[Ranking], Visits]:
        recall = self.declared_recall(options)
        self._require_published(options)
        kernels = self.usable_kernels
        is_able = len(vectors) > 0 and bool(vectors.any(axis=1).all())
        if recall is not None and is_able and self.cells.can_search(recall, count, rows):
            found, visits = self.cells.nearest(
                vectors, count, metric=options.metric, recall=recall, rows=rows, kernels=kernels, keep=keep
            )
            return [self._ordered(near, scores, count) for near, scores in found], list(visits)
        scored = self.cells.exact(vectors, count, metric=options.metric, rows=rows, kernels=kernels, keep=keep)
        return [self._ordered(near, scores, count) for near, scores in scored], [None] * len(vectors)

    def _require_published(self, options: SearchOptions) -> None:
        """Refuse a search by other codes than those that scores are computed from: no others are published.

        Raises
        ------
        QueryError
            If the options need others, or no index of the space can search by them.
        """
        name, is_chosen = self.searched(options), options.mode in ("exact", "quantized", "tiered")
        if (is_chosen or options.representation is not None) and name != self.finest_name:
            raise QueryError(
                f"mode {options.mode} would search {name}, but without a local copy, only {self.finest_name} can be "
                "searched. Use mode auto or approximate without a representation, or open the index with a local copy "
                '(local="copy").'
            )
