"""Open a space with its encoder from a store, verify both, and embed text with them."""

from __future__ import annotations

import functools
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from isospace.encoding.loading import open_encoder
from isospace.encoding.registry.record import EncoderRecord, read_encoder_record
from isospace.encoding.role_encoders import DeferredEncoder, RoleEncoders, record_of, require_encoders
from isospace.errors import NO_ANSWER, ConfigError, EncoderError, MismatchError, NotFoundError, install_command
from isospace.ingest.document import is_unicode
from isospace.storage import paths as layout
from isospace.storage.store import Store, as_store
from isospace.transform.affine import ROLES, Role
from isospace.transform.probes import Agreement, Windows
from isospace.transform.quantizer_set import Representation, dequantize, quantize
from isospace.transform.space import PROBES_WITH_TEXTS, SPACE_FILES, Space, read_space
from isospace.transform.transform import apply_transform
from isospace.transform.vectors import Float32, require_array

if TYPE_CHECKING:
    from isospace.encoding.encoder import Encoder
    from isospace.encoding.engine import Engine


_LOG = logging.getLogger(__name__)
_MIN_DIGITS = 8
_FULL_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class OpenSpace:
    """A space with its encoder: turns text into vectors, identically at indexing and at query time.

    Attributes
    ----------
    agreement
        How closely the encoder reproduced the space's probes; None if no encoder was loaded. In an opened index: how
        closely it reproduces the vectors of the snapshot, see `isospace.search.promise`. In a space with an encoder for
        each role: of the encoders that were loaded.
    uncovered
        Stages that the probes do not exercise, so that a change there goes unnoticed.
    """

    space: Space
    encoder: Encoder
    agreement: Agreement | None = None
    uncovered: tuple[str, ...] = ()

    def __repr__(self) -> str:
        record = self.space.record
        return f"OpenSpace({self.space_id[:12]}…, {record.input_dimension} -> {record.dimension} dimensions)"

    @property
    def space_id(self) -> str:
        """Fingerprint of the space."""
        return self.space.space_id

    def encode(self, texts: Sequence[str], role: Role) -> Float32:
        """Return the (n, d) float32 raw vectors of n texts."""
        _require_texts(texts, role)
        if record_of(self.encoder, role).served is not None:
            _require_short(self.encoder, texts, role)
        return self.encoder.encode(texts, role)

    def transform(self, raw: Float32, role: Role = "document") -> Float32:
        """Map (n, d) float32 raw vectors to (n, k) float32 vectors; each row's bits depend on that row alone."""
        if role not in ROLES:
            raise MismatchError(f"role {role!r}; expected {' or '.join(map(repr, ROLES))}.")
        require_array(raw, "raw", f"an (n, {self.space.record.input_dimension}) float32")
        transformed = apply_transform(self.space.transform, raw, role)
        if transformed.clipped:
            _LOG.warning(
                "%d values in the vectors of %d texts exceed the bounds of the space and were clipped",
                transformed.clipped,
                len(raw),
            )
        return transformed.vectors

    def quantize(self, vectors: Float32, representation: Representation) -> npt.NDArray[Any]:
        """Quantize (n, k) float32 vectors; the representation decides the dtype and width of the codes."""
        return quantize(self.space.transform.quantizers, vectors, representation)

    def dequantize(self, codes: npt.NDArray[Any], representation: Representation) -> Float32:
        """Turn codes back into (n, k) float32 vectors, with the scales stored in the space."""
        return dequantize(self.space.transform.quantizers, codes, representation)

    def embed(self, texts: Sequence[str], role: Role) -> Float32:
        """Return the (n, k) float32 vectors of n texts: `encode`, then `transform`."""
        return self.transform(self.encode(texts, role), role)


@dataclass(frozen=True, slots=True)
class AbsentEncoder:
    """Placeholder for an encoder that was not loaded: vectors can be searched, texts cannot be embedded.

    Attributes
    ----------
    record
        Identity of the encoder that the space was fitted with, or of that of one role.
    """

    record: EncoderRecord

    def tokenize(self, texts: Sequence[str], role: Role) -> list[list[int]]:
        """Raise EncoderError."""
        raise self._error()

    def inputs(self, texts: Sequence[str], role: Role) -> list[Windows]:
        """Raise EncoderError."""
        raise self._error()

    def encode(self, texts: Sequence[str], role: Role) -> Float32:
        """Raise EncoderError."""
        raise self._error()

    def encode_windows(self, texts: Sequence[Windows], role: Role) -> Float32:
        """Raise EncoderError."""
        raise self._error()

    def _error(self) -> EncoderError:
        return EncoderError(
            "the index was opened without its encoder, so that it takes vectors and no texts. Give raw vectors of "
            f"encoder {self.record.encoder_id[:16]}…, or open it with encode=True. What that "
            f"needs comes with: {install_command('query')}"
        )


def _require_texts(texts: Sequence[str], role: Role) -> None:
    if not isinstance(texts, Sequence):
        raise MismatchError(f"texts is a {type(texts).__name__}; expected a list of strings.")
    # A string is also a sequence of strings: its letters would be embedded one by one, without an error.
    if isinstance(texts, str):
        raise MismatchError(
            f"texts is the string {texts[:40]!r}; expected a list of strings, such as [{texts[:20]!r}]."
        )
    if role not in ROLES:
        raise MismatchError(f"role {role!r}; expected {' or '.join(map(repr, ROLES))}.")
    if broken := [number for number, text in enumerate(texts) if isinstance(text, str) and not is_unicode(text)]:
        raise MismatchError(
            f"text {broken[0]} is {ascii(texts[broken[0]])[:80]}, which is not Unicode text: it has half of a "
            "surrogate pair, as bytes of another encoding leave it. Decode it with its own encoding."
        )


def _require_short(encoder: Encoder, texts: Sequence[str], role: Role) -> None:
    """Refuse texts that are too long for a served encoder: some servers cut them without a word."""
    limit = record_of(encoder, role).max_tokens
    lengths = [len(ids) for ids in encoder.tokenize(texts, role)]
    if (longest := max(lengths, default=0)) > limit:
        raise MismatchError(
            f"text {lengths.index(longest)} has {longest:,} tokens, as they are counted here; expected at most "
            f"{limit:,}, the encoder's limit. Shorten it: no text is cut."
        )


def load_space(store: Store, space_id: str) -> Space:
    """Read and verify a space, without its encoder."""
    folder = layout.space_folder(space_id)
    return read_space({name: store.read(f"{folder}/{name}") for name in SPACE_FILES}, space_id=space_id)


def find_space(store: Store, space_id: str) -> str:
    """Return the full ID of a space, from its first eight digits or more.

    Raises
    ------
    ConfigError
        If `space_id` is not a text.
    NotFoundError
        If the store has no such space, or several.
    """
    if not isinstance(space_id, str):
        raise ConfigError(f"space_id = {space_id!r:.60}; expected a text of hexadecimal digits.")
    # The store refuses a path, such as that of a forged manifest.
    if _FULL_ID.fullmatch(space_id) or "/" in space_id:
        return space_id
    known = layout.list_spaces(store)
    matching = [name for name in known if len(space_id) >= _MIN_DIGITS and name.startswith(space_id)]
    if len(matching) != 1:
        listed = ", ".join(f"{name[:16]}…" for name in (matching or known)[:8]) or "none"
        raise NotFoundError(
            f"space {space_id[:70]!r}: {len(matching)} spaces of {store.url} have an ID that starts with this; "
            f"expected one, given by at least {_MIN_DIGITS} digits. Spaces there: {listed}."
        )
    return matching[0]


def open_space(
    store: Store | str | os.PathLike[str],
    space_id: str,
    *,
    encoder: Encoder | None = None,
    engine: Engine | None = None,
    encode: bool = True,
    documents: bool = False,
) -> OpenSpace:
    """Open a space: verify every hash, load the encoder, and re-encode the probes.

    If documents and queries have an encoder each, that of queries is loaded. A search needs no other. The documents'
    encoder is loaded with the first document, and encodes it only if it reproduces the probes.

    Parameters
    ----------
    store
        A store, or its URL.
    space_id
        64 hexadecimal digits, or the first eight or more of them.
    encoder
        An encoder that is already loaded, or the `RoleEncoders` of a space that has two; loaded from the store if
        None.
    engine
        Backend and device for an encoder from the store.
    encode
        Whether texts will be embedded. If False, no model is loaded; transforming raw vectors needs only NumPy.
    documents
        Whether to load and check the documents' encoder now, if queries have another one.

    Raises
    ------
    ConfigError
        If `store` or `space_id` is of another type.
    NotFoundError
        If the store has no such space, or more than one whose ID starts with these digits.
    IntegrityError
        If the content of a file differs from its hash.
    MismatchError
        If an encoder is not the space's, encoders of two roles are swapped, or a probe comes out differently; the
        message names the first stage that differs.
    """
    opened = as_store(store)
    space = load_space(opened, find_space(opened, space_id))
    space_id = space.space_id
    if not encode:
        return OpenSpace(space, _absent(opened, space))
    chosen = _encoders(opened, space, encoder, engine)
    if documents and isinstance(chosen, RoleEncoders) and isinstance(chosen.document, DeferredEncoder):
        chosen = RoleEncoders(chosen.document.loaded, chosen.query)
    try:
        agreement = _check(space, chosen, _loaded_roles(chosen))
    except NO_ANSWER as error:
        if encoder is not None:
            raise
        _LOG.warning(
            "space %s: its encoder is behind an API that embeds no text now (%s). Until it does, only words can be "
            "searched. Its vectors are compared with the space's before the first one is used",
            space_id[:16],
            error,
        )
        return OpenSpace(space, _postponed(opened, space, engine))
    if uncovered := uncovered_stages(space, chosen.record):
        _LOG.warning(
            "space %s: its probes do not cover %s, so that a change there goes unnoticed. Fit a new space with "
            "runtime.refit=true; no text is re-encoded",
            space_id[:16],
            ", ".join(uncovered),
        )
    return OpenSpace(space, chosen, agreement, uncovered)


def _absent(store: Store, space: Space) -> Encoder:
    documents = AbsentEncoder(read_encoder_record(store, space.record.encoder_id))
    if space.record.query_encoder_id is None:
        return documents
    return RoleEncoders(documents, AbsentEncoder(read_encoder_record(store, space.record.query_encoder_id)))


def _encoders(store: Store, space: Space, given: Encoder | None, engine: Engine | None) -> Encoder:
    """Return the encoder of a space, or one for each role; those that are given must be the space's."""
    record = space.record
    if record.query_encoder_id is None and not isinstance(given, RoleEncoders):
        chosen = given or open_encoder(store, record.encoder_id, engine)
        if chosen.record.encoder_id != record.encoder_id:
            raise MismatchError(
                f"encoder {chosen.record.encoder_id[:16]}… is not the encoder of space {space.space_id[:16]}…; "
                f"expected {record.encoder_id[:16]}…. Differing: "
                f"{', '.join(_differences(store, chosen, record.encoder_id))}. "
                "Use the space's encoder, or re-embed the collection with the other one."
            )
        return chosen
    if given is not None:
        require_encoders(given, record)
        if not isinstance(given, RoleEncoders) or _is_loaded(given.document):
            return given
        # It would check the probes of the space that it was opened with.
        return RoleEncoders(_deferred(store, space, engine), given.query)
    query = open_encoder(store, record.encoder_ids["query"], engine)
    return RoleEncoders(_deferred(store, space, engine), query)


def _deferred(store: Store, space: Space, engine: Engine | None) -> DeferredEncoder:
    """Return the documents' encoder of a space, which is loaded and checked with the first document."""
    encoder_id = space.record.encoder_id

    def load() -> Encoder:
        encoder = open_encoder(store, encoder_id, engine)
        _check(space, encoder, ("document",))
        return encoder

    return DeferredEncoder(read_encoder_record(store, encoder_id), load)


def _postponed(store: Store, space: Space, engine: Engine | None) -> Encoder:
    """Return the encoders of a space whose provider does not answer: each is checked before its first text."""

    def later(role: Role) -> DeferredEncoder:
        encoder_id = space.record.encoder_ids[role]
        # Opened once: its client remembers that the provider failed, and does not make every query wait.
        opened = functools.lru_cache(lambda: open_encoder(store, encoder_id, engine))

        def load() -> Encoder:
            _check(space, opened(), ROLES if space.record.query_encoder_id is None else (role,))
            return opened()

        # A service counts the tokens of a query before it searches, also where words alone will be searched.
        return DeferredEncoder(read_encoder_record(store, encoder_id), load, opened)

    if space.record.query_encoder_id is None:
        return later("document")
    return RoleEncoders(later("document"), later("query"))


def _is_loaded(encoder: Encoder) -> bool:
    return not isinstance(encoder, DeferredEncoder) or encoder.is_loaded


def _loaded_roles(encoder: Encoder) -> tuple[Role, ...]:
    return ROLES if not isinstance(encoder, RoleEncoders) or _is_loaded(encoder.document) else ("query",)


def _check(space: Space, encoder: Encoder, roles: tuple[Role, ...]) -> Agreement:
    """Run the probes of some roles through an encoder."""
    from isospace.encoding.probing import check_probes

    agreement = check_probes(space, encoder, roles)
    if space.record.promise == "bitwise" and not agreement.bitwise:
        # Not a warning: what an index promises is decided by the vectors of its snapshot.
        _LOG.info(
            "space %s was sealed by %s; here its probes agree only within tolerance (cosine %.9f)",
            space.space_id[:16],
            space.provenance.get("engine"),
            agreement.cosine,
        )
    return agreement


def uncovered_stages(space: Space, record: EncoderRecord) -> tuple[str, ...]:
    """Name what the probes of a space do not cover: nothing, unless an earlier version sealed it."""
    if space.record.format >= PROBES_WITH_TEXTS:
        return ()
    cut = ("truncation",) if record.windows is None else ("windows", "pooling over windows")
    return (*cut, "some rules of the tokenizer")


def _differences(store: Store, encoder: Encoder, encoder_id: str) -> list[str]:
    expected = read_encoder_record(store, encoder_id).model_dump(mode="json")
    actual = encoder.record.model_dump(mode="json")
    return [key for key in expected if actual.get(key) != expected[key]]
