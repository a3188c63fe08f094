"""The manifests of an index of raw vectors: a numbered log, whose last entry says which levels count."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from isospace.collection.vector_index.level import Level
from isospace.errors import IntegrityError, NotFoundError
from isospace.storage import paths as layout
from isospace.storage.hashing import unseal
from isospace.storage.local_files import Stat
from isospace.storage.numbered_log import append, entry_paths
from isospace.storage.paths import number_of
from isospace.storage.store import Store

# Who reads an older manifest may still need its levels, and who is about to name a new level has just written it.
_KEPT_SECONDS = 86_400.0


class IndexManifest(BaseModel):
    """The levels of an index, the oldest first."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: Literal[1] = 1
    levels: tuple[Level, ...]


def read_index(store: Store, encoder_id: str) -> IndexManifest | None:
    """Return the manifest that counts; None if there is none.

    Raises
    ------
    IntegrityError
        If it is damaged, or a newer version wrote it.
    """
    paths = entry_paths(store, layout.vector_index_manifests(encoder_id))
    return _read(store, paths[max(paths)]) if paths else None


def write_index(store: Store, encoder_id: str, change: Callable[[tuple[Level, ...]], Sequence[Level]]) -> IndexManifest:
    """Append a manifest with other levels, and return it.

    Parameters
    ----------
    change
        Returns the new levels, given those of the last manifest, or none if that is damaged. It is called again if
        another process appends first.

    Raises
    ------
    ConflictError
        If other processes append again and again.
    """

    def make(number: int) -> IndexManifest:
        try:
            last = read_index(store, encoder_id)
        except IntegrityError:
            last = None
        return IndexManifest(levels=tuple(change(last.levels if last is not None else ())))

    return append(store, layout.vector_index_manifests(encoder_id), make)


def old_index_files(store: Store, encoder_id: str) -> list[Stat]:
    """Return old manifests, and levels that no other manifest names; those of the last day are not old."""
    manifests = {stat.path: stat for stat in store.walk(layout.vector_index_manifests(encoder_id))}
    if not manifests:
        return []
    last = max(manifests, key=lambda path: number_of(path) or 0)
    before = manifests[last].modified - _KEPT_SECONDS
    old = [stat for path, stat in manifests.items() if path != last and stat.modified < before]
    named = _named(store, encoder_id, manifests.keys() - {stat.path for stat in old})
    levels = store.walk(layout.vector_index_levels(encoder_id))
    return [*old, *(stat for stat in levels if stat.path not in named and stat.modified < before)]


def index_files(store: Store, encoder_id: str) -> list[Stat]:
    """Return all files of an index, in an order to delete them in: a killed deletion leaves a whole one, or none."""
    folder = layout.vector_index_manifests(encoder_id)
    # The last manifest after the others, which name less, and before the levels.
    return sorted(
        store.walk(layout.vector_index(encoder_id)),
        key=lambda stat: (not stat.path.startswith(f"{folder}/"), stat.path),
    )


def drop_index(store: Store, encoder_id: str) -> list[str]:
    """Delete an index, which the next run makes again; return the paths of its files."""
    paths = [stat.path for stat in index_files(store, encoder_id)]
    for path in paths:
        store.delete(path)
    return paths


def verify_index(store: Store, encoder_id: str) -> int:
    """Hash the files of an index; return how many there are.

    Raises
    ------
    IntegrityError
        If the manifest is damaged, or a level is missing or damaged.
    """
    manifest = read_index(store, encoder_id)
    for level in manifest.levels if manifest is not None else ():
        path = layout.vector_index_level(encoder_id, level.sha256)
        try:
            digest = store.digest(path)
        except NotFoundError:
            digest = "no file"
        if digest != level.sha256:
            raise IntegrityError(
                f"{path}: has SHA-256 {digest[:16]}…, its manifest says {level.sha256[:16]}…. The next run makes the "
                "index of raw vectors again; nothing is lost."
            )
    return 0 if manifest is None else 1 + len(manifest.levels)


def _named(store: Store, encoder_id: str, paths: Collection[str]) -> set[str]:
    named = set()
    for path in paths:
        try:
            levels = _read(store, path).levels
        except IntegrityError:
            continue
        named |= {layout.vector_index_level(encoder_id, level.sha256) for level in levels}
    return named


def _read(store: Store, path: str) -> IndexManifest:
    try:
        return IndexManifest.model_validate(unseal(store.read(path), name=path))
    except ValidationError as error:
        raise IntegrityError(
            f"{path}: is not a manifest of an index of raw vectors that this version reads ({error.error_count()} "
            "fields differ). The next run makes another."
        ) from error
