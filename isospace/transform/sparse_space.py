"""The sparse space: a sparse encoder, the grid of its weights, and probes; sealed and immutable.

It stands beside the dense space of a snapshot. Reads and writes the bytes of files by name, and needs NumPy alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError

from isospace.errors import IntegrityError, MismatchError
from isospace.storage.hashing import fingerprint, seal, sha256, unseal
from isospace.transform.affine import ROLES, Role
from isospace.transform.probe_texts import PROBE_TEXTS, TOKENIZER_TEXTS
from isospace.transform.sparse import SparseGrid, SparseVectors, quantize_sparse, require_sparse

FORMAT = 1
SPARSE_DOCUMENT, SPARSE_PROBES = "sparse.json", "probes.safetensors"
SPARSE_SPACE_FILES = (SPARSE_DOCUMENT, SPARSE_PROBES)
# Between machines and versions of torch, cosines differ by far less than this.
MIN_COSINE = 0.9999
_LONG = "Paragraph {0} tells a reader what part {0} of a text says, and how it follows from the one before. "
Arrays = dict[str, npt.NDArray[Any]]


class SparseProbed(Protocol):
    """What the probes need of a sparse encoder."""

    @property
    def vocabulary(self) -> int:
        """Number of components of a vector."""

    def tokenize(self, texts: Sequence[str], role: Role) -> list[list[int]]:
        """Return the token IDs that the model receives for each text, cut to its limit."""

    def encode(self, texts: Sequence[str], role: Role) -> SparseVectors:
        """Return the raw sparse vectors of texts."""


class SparseSpaceRecord(BaseModel):
    """Identity of a sparse space: all of sparse.json except the provenance."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: int = FORMAT
    encoder_id: str
    vocabulary: int
    grid: SparseGrid
    probes_sha256: str
    min_cosine: float = MIN_COSINE

    @property
    def space_id(self) -> str:
        """Fingerprint of this record."""
        return fingerprint(self.model_dump(mode="json"))


@dataclass(frozen=True, slots=True)
class SparseSpace:
    """An opened sparse space.

    Attributes
    ----------
    probes
        Texts, and by role their tokens, raw vectors, and codes.
    provenance
        Where and when it was sealed. Not part of the identity.
    """

    record: SparseSpaceRecord
    probes: Arrays
    provenance: dict[str, Any]

    @property
    def space_id(self) -> str:
        """Fingerprint of the record."""
        return self.record.space_id


def seal_sparse_space(
    encoder_id: str,
    encoder: SparseProbed,
    grid: SparseGrid,
    *,
    longest: int,
    texts: Sequence[str] = (),
    provenance: Mapping[str, object],
) -> tuple[str, dict[str, bytes]]:
    """Run the probes through an encoder, and serialize the space; return its ID, and the bytes of its files by name.

    Parameters
    ----------
    longest
        The encoder's limit in tokens: one probe is longer, so that another way to cut texts is noticed.
    texts
        Further texts to tokenize, chosen for the encoder's tokenizer.
    provenance
        Where and when the space was sealed. Not part of the identity.
    """
    long = "".join(_LONG.format(number) for number in range(1, 2 + longest // 10))
    texts = list(dict.fromkeys([*PROBE_TEXTS, *TOKENIZER_TEXTS, *texts, long]))
    data = [np.frombuffer(text.encode(), np.uint8) for text in texts]
    probes: Arrays = {"text": np.concatenate(data), "text_lengths": np.array([len(one) for one in data], np.int64)}
    for role in ROLES:
        tokens = encoder.tokenize(texts, role)
        probes[f"{role}.tokens"] = np.array([token for ids in tokens for token in ids], np.int64)
        probes[f"{role}.lengths"] = np.array([len(ids) for ids in tokens], np.int64)
        raw = encoder.encode(list(PROBE_TEXTS), role)
        probes |= _arrays(f"{role}.raw", raw) | _arrays(f"{role}.codes", quantize_sparse(raw, grid, role)[0])
    probe_bytes = safetensors.numpy.save({name: np.ascontiguousarray(array) for name, array in probes.items()})
    record = SparseSpaceRecord(
        encoder_id=encoder_id, vocabulary=encoder.vocabulary, grid=grid, probes_sha256=sha256(probe_bytes)
    )
    document = {"record": record.model_dump(mode="json"), "space_id": record.space_id, "provenance": dict(provenance)}
    return record.space_id, {SPARSE_DOCUMENT: seal(document), SPARSE_PROBES: probe_bytes}


def read_sparse_space(files: Mapping[str, bytes], *, space_id: str) -> SparseSpace:
    """Verify and open a sparse space from the bytes of its `SPARSE_SPACE_FILES` by name.

    Raises
    ------
    IntegrityError
        If a file was changed after it was sealed, is of another format, or belongs to another space.
    MismatchError
        If this version quantizes the recorded raw vectors of the probes to other codes.
    """
    document = unseal(files[SPARSE_DOCUMENT], name=SPARSE_DOCUMENT)
    if (found := document["record"].get("format")) != FORMAT:
        raise IntegrityError(
            f"{SPARSE_DOCUMENT} of sparse space {space_id[:16]}…: format {found}; this version of isospace reads "
            f"{FORMAT}. Use the version that sealed it, or fit a new space with runtime.refit=true."
        )
    record = SparseSpaceRecord.model_validate(document["record"])
    if record.space_id != space_id:
        raise IntegrityError(
            f"{SPARSE_DOCUMENT}: is sparse space {record.space_id[:16]}…, expected {space_id[:16]}…. Restore the space."
        )
    if (digest := sha256(files[SPARSE_PROBES])) != record.probes_sha256:
        raise IntegrityError(
            f"{SPARSE_PROBES} of sparse space {space_id[:16]}… has SHA-256 {digest[:16]}…, expected "
            f"{record.probes_sha256[:16]}…. Restore the space."
        )
    try:
        space = SparseSpace(record, dict(safetensors.numpy.load(files[SPARSE_PROBES])), document["provenance"])
    except SafetensorError as error:
        raise IntegrityError(f"{SPARSE_PROBES}: not a safetensors file ({error}). Restore the file.") from error
    for role in ROLES:
        _require_codes(space, role)
    return space


def check_sparse_probes(space: SparseSpace, encoder: SparseProbed, roles: Sequence[Role] = ROLES) -> float:
    """Run the probes through the encoder again; return the smallest cosine with what was recorded.

    Raises
    ------
    MismatchError
        If anything differs; names the stage (tokens, raw vectors), the role, and the probe.
    """
    texts = _texts(space.probes)
    smallest = 1.0
    for role in roles:
        lengths = space.probes[f"{role}.lengths"]
        recorded = np.split(space.probes[f"{role}.tokens"], np.cumsum(lengths)[:-1])
        for text, ids, known in zip(texts, encoder.tokenize(texts, role), recorded, strict=True):
            if list(ids) != known.tolist():
                raise MismatchError(
                    f"tokens of the sparse encoder differ for role {role}, probe {text[:40]!r}: {list(ids)[:8]}… "
                    f"({len(ids)} tokens), but the space recorded {known[:8].tolist()}… ({len(known)} tokens). Use the "
                    "tokenizer version that the space was sealed with."
                )
        smallest = min(smallest, _check_raw(space, encoder.encode(list(PROBE_TEXTS), role), role))
    return smallest


def _check_raw(space: SparseSpace, raw: SparseVectors, role: Role) -> float:
    vocabulary, limit = space.record.vocabulary, space.record.min_cosine
    require_sparse(raw, vocabulary, f"raw vectors of the sparse encoder for role {role}")
    known, found = _vectors(space.probes, f"{role}.raw").dense(vocabulary), raw.dense(vocabulary)
    before, now = np.linalg.norm(known, axis=1), np.linalg.norm(found, axis=1)
    # Two texts without any term are equal.
    empty = (before == 0) & (now == 0)
    cosines = np.where(empty, 1.0, (known * found).sum(axis=1) / np.maximum(before * now, 1e-30))
    worst = int(cosines.argmin())
    if cosines[worst] < limit:
        raise MismatchError(
            f"raw vectors of the sparse encoder differ for role {role}, probe {PROBE_TEXTS[worst][:40]!r}: cosine "
            f"{cosines[worst]:.7f}, expected at least {limit:.7f}. The model, its weights, or its library give other "
            "results than those of the space: use the same versions."
        )
    ratios = np.where(empty, 1.0, now / np.maximum(before, 1e-30))
    longest = int(np.abs(ratios - 1.0).argmax())
    if abs(ratios[longest] - 1.0) > np.sqrt(2.0 * (1.0 - limit)):
        raise MismatchError(
            f"raw vectors of the sparse encoder differ for role {role}, probe {PROBE_TEXTS[longest][:40]!r}: "
            f"{ratios[longest]:.5f} times as long as recorded. Use the encoder of the space."
        )
    return min(1.0, float(cosines.min()))


def _require_codes(space: SparseSpace, role: Role) -> None:
    raw, recorded = (_vectors(space.probes, f"{role}.{kind}") for kind in ("raw", "codes"))
    require_sparse(raw, space.record.vocabulary, f"{SPARSE_PROBES}, raw vectors of role {role}")
    computed = quantize_sparse(raw, space.record.grid, role)[0]
    pairs: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]
    pairs = [(recorded.starts, computed.starts), (recorded.terms, computed.terms), (recorded.values, computed.values)]
    if any(known.dtype != found.dtype or not np.array_equal(known, found) for known, found in pairs):
        raise MismatchError(
            f"codes of the sparse space differ for role {role}: the recorded raw vectors of the probes no longer give "
            "the recorded impacts. This version of isospace quantizes differently: use the version that sealed it."
        )


def _texts(probes: Mapping[str, npt.NDArray[Any]]) -> list[str]:
    ends = np.cumsum(probes["text_lengths"])[:-1]
    return [piece.tobytes().decode() for piece in np.split(probes["text"], ends)]


def _arrays(name: str, vectors: SparseVectors) -> Arrays:
    return {f"{name}.starts": vectors.starts, f"{name}.terms": vectors.terms, f"{name}.values": vectors.values}


def _vectors(probes: Mapping[str, npt.NDArray[Any]], name: str) -> SparseVectors:
    try:
        return SparseVectors(probes[f"{name}.starts"], probes[f"{name}.terms"], probes[f"{name}.values"])
    except KeyError as error:
        raise IntegrityError(f"{SPARSE_PROBES} lacks {error}. Restore the space.") from error
