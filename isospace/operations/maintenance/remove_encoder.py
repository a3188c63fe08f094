"""Remove an encoder that no snapshot needs, a fine-tuned or distilled one too, which a vacuum keeps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from isospace.collection.alias import aliases
from isospace.collection.disk_usage import size_text
from isospace.collection.snapshot import read_manifest, sequences
from isospace.errors import BusyError, ConfigError, IsospaceError, NotFoundError
from isospace.finetuning.lineage import read_lineage
from isospace.storage.hashing import shortened_id
from isospace.storage.leases import maintenance_lease
from isospace.storage.paths import encoder_folder, encoder_vectors, list_collections, list_encoders
from isospace.storage.store import Store
from isospace.storage.trash import remove_files

_MIN_DIGITS = 8


@dataclass(frozen=True, slots=True)
class RemovedEncoder:
    """What was removed.

    Attributes
    ----------
    files, bytes
        Number and total size of its files.
    made_from_it
        Encoders whose lineage names it as their base. They have weights of their own.
    vector_bytes
        Size of its raw vectors, which stay.
    done
        False for a dry run.
    """

    encoder_id: str
    files: int
    bytes: int
    made_from_it: tuple[str, ...]
    vector_bytes: int
    done: bool

    def describe(self) -> str:
        """Return in words what was removed, and what remains."""
        verb, count = (
            "removed" if self.done else "would remove",
            "1 file" if self.files == 1 else f"{self.files:,} files",
        )
        lines = [
            f"encoder {shortened_id(self.encoder_id)}: {verb} {count}, {self.bytes:,} bytes ({size_text(self.bytes)})"
        ]
        if self.made_from_it:
            names = ", ".join(shortened_id(name) for name in self.made_from_it)
            lines.append(f"Made from it, and still usable, since they have weights of their own: {names}")
        if self.vector_bytes:
            lines.append(
                f"Its raw vectors stay ({size_text(self.vector_bytes)}): `isospace vacuum STORE --vectors` removes "
                "them, after the retention."
            )
        return "\n".join(lines)


def remove_encoder(store: Store, digits: str, *, dry: bool = False) -> RemovedEncoder:
    """Remove all files of an encoder, unless a snapshot of any collection needs it.

    Parameters
    ----------
    digits
        Its ID, or at least the first eight digits of it.
    dry
        Only report what would be removed.

    Raises
    ------
    BusyError
        If a run or a command that deletes files uses the store, or if a snapshot with it is committed meanwhile.
    ConfigError
        If the digits are too few or those of several encoders, or if a snapshot needs the encoder.
    IntegrityError
        If a snapshot cannot be read, since what it needs is unknown.
    NotFoundError
        If there is no such encoder.
    """
    encoder_id = _find_encoder(store, digits)
    if dry:
        _require_unused(store, encoder_id)
        return _found(store, encoder_id, done=False)[0]
    # Collections share encoders, and any run may be about to use one: no run may be working then.
    with maintenance_lease(store, None, "the removal of an encoder") as lease:
        _require_unused(store, encoder_id)
        removed, files = _found(store, encoder_id, done=True)

        def check() -> None:
            if users := list(_users(store, encoder_id)):
                raise BusyError(
                    f"encoder {shortened_id(encoder_id)}: {users[0]} was committed while it was being removed; all "
                    "files were put back. It is needed now."
                )

        remove_files(store, lease.token, files, proceed=lease.require, check=check)
        store.remove_empty(encoder_folder(encoder_id))
    return removed


def _find_encoder(store: Store, digits: str) -> str:
    known = list_encoders(store)
    matching = [name for name in known if name.startswith(digits)]
    if len(digits) < _MIN_DIGITS:
        raise ConfigError(
            f"encoder {digits!r}: {len(digits)} digits; expected at least {_MIN_DIGITS}, the first of its ID. "
            "`isospace encoders STORE` lists the IDs."
        )
    if not matching:
        raise NotFoundError(
            f"encoder {digits!r}: not in {store.url}. Encoders there: "
            f"{', '.join(name[:16] for name in known[:8]) or 'none'}{', …' if len(known) > 8 else ''}."
        )
    if len(matching) > 1:
        raise ConfigError(
            f"encoder {digits!r}: {len(matching)} encoders begin with these digits; expected those of one. Give more "
            f"digits: {', '.join(matching)}."
        )
    return matching[0]


def _require_unused(store: Store, encoder_id: str) -> None:
    if users := list(_users(store, encoder_id)):
        raise ConfigError(
            f"encoder {shortened_id(encoder_id)}: is needed by {'; '.join(users)}; expected an encoder that no "
            "snapshot needs. Remove these snapshots first: remove their aliases with `isospace aliases STORE "
            "COLLECTION --remove NAME`, and then run `isospace vacuum STORE --retention-days 0`, which keeps the "
            "latest snapshot; or remove a whole collection with `isospace drop STORE COLLECTION`."
        )


def _users(store: Store, encoder_id: str) -> Iterator[str]:
    """Yield which snapshots of each collection need an encoder for documents, queries, or sparse vectors.

    The lineage of an encoder that was made from it needs nothing but its ID.
    """
    for collection in list_collections(store):
        numbers = [
            number
            for number in sequences(store, collection)
            if encoder_id in read_manifest(store, collection, number).all_encoder_ids
        ]
        if numbers:
            named = sorted(name for name, entry in aliases(store, collection).items() if entry.snapshot in numbers)
            which = f"snapshots {', '.join(map(str, numbers))}" if len(numbers) > 1 else f"snapshot {numbers[0]}"
            yield f"{which} of collection {collection!r}" + (f" ({', '.join(named)})" if named else "")


def _found(store: Store, encoder_id: str, *, done: bool) -> tuple[RemovedEncoder, list[str]]:
    folder = encoder_folder(encoder_id)
    stats = [*store.walk(folder), *store.leftovers(folder)]
    removed = RemovedEncoder(
        encoder_id=encoder_id,
        files=len(stats),
        bytes=sum(stat.size for stat in stats),
        made_from_it=tuple(name for name in list_encoders(store) if _base_of(store, name) == encoder_id),
        vector_bytes=sum(stat.size for stat in store.walk(encoder_vectors(encoder_id))),
        done=done,
    )
    return removed, [stat.path for stat in stats]


def _base_of(store: Store, encoder_id: str) -> str | None:
    try:
        return read_lineage(store, encoder_id).base
    except IsospaceError:
        # Most have none, and a damaged one needs nothing.
        return None
