"""Look chunk hashes up in the index of raw vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from isospace.collection.origins import Origin
from isospace.collection.vector_files import present_parts, vector_part_path
from isospace.collection.vector_index.blocks import Numbers
from isospace.collection.vector_index.level import Hashes, LevelReader, keys_of
from isospace.collection.vector_index.refresh import VectorIndex

ABSENT = -1
_UNKNOWN, _GONE = -1, -2


@dataclass(slots=True)
class Finder:
    """Finds the file of each hash; files that were deleted do not count, which is looked up once for each.

    Attributes
    ----------
    index
        What to look in.
    paths, origins
        The files that were met so far, and what computed the vectors in them.
    """

    index: VectorIndex
    paths: list[str] = field(default_factory=list)
    origins: list[Origin] = field(default_factory=list)
    _numbers: dict[str, int] = field(default_factory=dict)
    _known: list[Numbers] = field(init=False)

    def __post_init__(self) -> None:
        self._known = [np.full(reader.level.files, _UNKNOWN, np.int64) for reader in self.index.readers]

    def find(self, hashes: Hashes) -> Numbers:
        """Return the position in `paths` of the file that holds each hash, or ABSENT.

        Of several, it is the file whose path is the first in sorted order, as if all files were read in that order.

        Parameters
        ----------
        hashes
            (n, 32), in any order.

        Raises
        ------
        IntegrityError
            If the index is damaged.
        NotFoundError
            If a level was deleted meanwhile.
        """
        order = np.argsort(keys_of(hashes), kind="stable")
        ordered = hashes[order]
        known = zip(self.index.readers, self._known, strict=True)
        found = [self._in_level(reader, numbers, ordered) for reader, numbers in known]
        empty = np.empty(0, np.int64)
        places = np.concatenate([empty, *(place for place, _ in found)])
        files = np.concatenate([empty, *(file for _, file in found)])
        met = np.unique(files)
        by_path = np.array([*sorted(met.tolist(), key=lambda number: self.paths[number]), ABSENT], np.int64)
        ranks = np.argsort(by_path[:-1])
        best = np.full(len(hashes), len(met), np.int64)
        np.minimum.at(best, order[places], ranks[np.searchsorted(met, files)])
        return by_path[best]

    def _in_level(self, reader: LevelReader, known: Numbers, hashes: Hashes) -> tuple[Numbers, Numbers]:
        """Return places of hashes and numbers of files in `paths`, for all entries of a level whose files exist."""
        places, files = reader.find(hashes)
        met = np.unique(files)
        new = met[known[met] == _UNKNOWN]
        if len(new):
            names, kinds = reader.files(new)
            known[new] = self._number(names, [reader.level.origins[kind] for kind in kinds.tolist()])
        numbers = known[files]
        return places[numbers != _GONE], numbers[numbers != _GONE]

    def _number(self, names: Sequence[str], origins: Sequence[Origin]) -> list[int]:
        unknown = [name for name in names if name not in self._numbers]
        index = self.index
        present = present_parts(index.store, index.encoder_id, unknown, among=index.files)
        for name, origin in zip(names, origins, strict=True):
            if name not in self._numbers:
                self._numbers[name] = len(self.paths) if name in present else _GONE
                if name in present:
                    self.paths.append(vector_part_path(index.encoder_id, name))
                    self.origins.append(origin)
        return [self._numbers[name] for name in names]
