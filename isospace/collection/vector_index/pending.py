"""Lists of parts of raw vectors that are about to be written, so that they are found by name and no folder is listed.

Whoever writes a part announces its name first. The index takes in what was announced and exists, and drops the list
when nothing more can come of it: all parts exist, or the run that announced them is over.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from isospace.errors import IntegrityError, NotFoundError
from isospace.storage import paths as layout
from isospace.storage.hashing import fingerprint, seal, unseal
from isospace.storage.store import Store

_NAMES_PER_LIST = 10_000
# Of a run that never ended, and whose collection never had another.
_FORGOTTEN_SECONDS = 30 * 86_400.0


@dataclass(frozen=True, slots=True)
class Announced:
    """A list of announced parts.

    Attributes
    ----------
    path
        Its file.
    names
        The names of the parts, as `name_of_part` returns them.
    collection, run_id
        Who announced them; empty if no run did.
    modified
        When it was written, by the store's clock.
    """

    path: str
    names: tuple[str, ...]
    collection: str = ""
    run_id: str = ""
    modified: float = 0.0

    def is_over(self, collection: str, run_id: str) -> bool:
        """Return whether nobody writes these parts any more, as far as a run of a collection can tell.

        It holds the lease of its collection, so that no other run of it is working.
        """
        ended = bool(self.collection) and self.collection == collection and self.run_id != run_id
        return ended or time.time() - self.modified > _FORGOTTEN_SECONDS


def announce(
    store: Store, encoder_id: str, names: Iterable[str], *, collection: str = "", run_id: str = ""
) -> list[str]:
    """Say that parts of document vectors will be written; return the paths of the lists."""
    written, ordered = [], sorted(set(names))
    for first in range(0, len(ordered), _NAMES_PER_LIST):
        some = ordered[first : first + _NAMES_PER_LIST]
        body = {"names": some, "collection": collection, "run_id": run_id}
        path = f"{layout.vector_index_pending(encoder_id)}/{fingerprint(body)[:32]}.json"
        store.create_if_absent(path, seal(body))
        written.append(path)
    return written


def announced(store: Store, encoder_id: str) -> list[Announced]:
    """Return what was announced and not dropped; a damaged list names nothing, and is over.

    The parts of such a list are encoded again.
    """
    found = []
    for stat in store.walk(layout.vector_index_pending(encoder_id)):
        try:
            body: dict[str, Any] = unseal(store.read(stat.path), name=stat.path)
            found.append(Announced(stat.path, tuple(body["names"]), body["collection"], body["run_id"], stat.modified))
        except NotFoundError:
            # Another run has dropped it.
            continue
        except (IntegrityError, KeyError, TypeError):
            found.append(Announced(stat.path, ()))
    return found
