"""The space: encoder, transform, and probes, sealed and immutable.

Reads and writes the bytes of files by name; `isospace.encoding.embedder` knows where the files are. Needs neither torch
nor Arrow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy.typing as npt
import safetensors.numpy
from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer
from safetensors import SafetensorError

from isospace.errors import IntegrityError
from isospace.storage.hashing import fingerprint, seal, sha256, unseal
from isospace.transform.affine import Role
from isospace.transform.probes import Arrays, check_transform
from isospace.transform.quantizer_set import Representation
from isospace.transform.spec import FitSpec, TransformSpec
from isospace.transform.transform import Transform, transform_arrays, transform_from_arrays

FORMAT = 3
# The first format whose probes have their own texts, among them some that are longer than the encoder's limit.
PROBES_WITH_TEXTS = 3
# The format of spaces with an encoder of their own for queries; all others keep theirs, and so their identity.
WITH_QUERY_ENCODER = 4
# The format of spaces with cells, whether or not queries have an encoder of their own: versions that do not know cells
# refuse it.
WITH_CELLS = 5
READABLE_FORMATS = (2, FORMAT, WITH_QUERY_ENCODER, WITH_CELLS)
DOCUMENT, PARAMS, PROBES = "space.json", "params.safetensors", "probes.safetensors"
SPACE_FILES = (DOCUMENT, PARAMS, PROBES)
Promise = Literal["bitwise", "within tolerance"]


class QueryEncoder(BaseModel):
    """The encoder of queries, in a space whose documents have another one.

    Attributes
    ----------
    encoder_id
        Its fingerprint.
    normalizes
        Whether its raw vectors have unit length.
    min_cosine
        Tolerance for its raw vectors from other machines and backends.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    encoder_id: str
    normalizes: bool
    min_cosine: float


class SpaceRecord(BaseModel):
    """Identity of a space: all of space.json except the provenance.

    `encoder_id`, `normalizes`, `promise`, and `min_cosine` are those of the documents' encoder. It encodes queries too,
    unless there is a `query_encoder`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: int = FORMAT
    encoder_id: str
    input_dimension: int
    dimension: int
    spec: TransformSpec
    fitted: FitSpec
    normalizes: bool
    params_sha256: str
    probes_sha256: str
    promise: Promise
    min_cosine: float
    query_encoder: QueryEncoder | None = None

    @model_serializer(mode="wrap")
    def _without_absent_parts(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # A part that is absent must not change the fingerprints of spaces that were sealed before it existed.
        body: dict[str, Any] = serialize(self)
        return {name: value for name, value in body.items() if name != "query_encoder" or value is not None}

    @property
    def query_encoder_id(self) -> str | None:
        """The encoder of queries; None if that of the documents encodes both."""
        return None if self.query_encoder is None else self.query_encoder.encoder_id

    @property
    def encoder_ids(self) -> dict[Role, str]:
        """The encoder of each role."""
        return {"document": self.encoder_id, "query": self.query_encoder_id or self.encoder_id}

    @property
    def tolerances(self) -> dict[Role, float]:
        """The smallest cosine of a probe with its record, by role."""
        queries = self.min_cosine if self.query_encoder is None else self.query_encoder.min_cosine
        return {"document": self.min_cosine, "query": queries}

    @property
    def space_id(self) -> str:
        """Fingerprint of this record; its hashes cover every fitted bit."""
        return fingerprint(self.model_dump(mode="json"))

    @property
    def representations(self) -> tuple[Representation, ...]:
        """Names of the stored representations; the first is searched."""
        return tuple(spec.name for spec in self.spec.representations)


@dataclass(frozen=True, slots=True)
class Space:
    """An opened space.

    Attributes
    ----------
    probes
        Recorded outputs of the reference texts.
    provenance
        Where and when it was fitted, and diagnostics of the fit. Not part of the identity.
    """

    record: SpaceRecord
    transform: Transform
    probes: Arrays
    provenance: dict[str, Any]

    @property
    def space_id(self) -> str:
        """Fingerprint of the record."""
        return self.record.space_id


def seal_space(
    *,
    encoder_id: str,
    spec: TransformSpec,
    fitted: FitSpec,
    normalizes: bool,
    transform: Transform,
    probes: Arrays,
    promise: Promise,
    min_cosine: float,
    provenance: Mapping[str, object],
    query_encoder: QueryEncoder | None = None,
) -> tuple[str, dict[str, bytes]]:
    """Serialize a space; return its space_id, and the bytes of its files by name.

    Parameters
    ----------
    encoder_id, spec, transform, probes
        The parts of the space.
    fitted
        The fit of the recipe, or the candidate that was chosen if the recipe says `auto`.
    normalizes
        Whether the encoder's raw vectors already have unit length.
    promise
        Whether a text's raw vector has the same bits in any batch, on one machine.
    min_cosine
        Tolerance for raw vectors from other machines and backends.
    provenance
        Where and when the space was fitted. Not part of the identity.
    query_encoder
        The encoder of queries, if it is not that of the documents.
    """
    params = safetensors.numpy.save(_contiguous(transform_arrays(transform)))
    probe_bytes = safetensors.numpy.save(_contiguous(probes))
    record = SpaceRecord(
        format=_format(spec, query_encoder),
        encoder_id=encoder_id,
        input_dimension=transform.affine.input_dimension,
        dimension=transform.dimension,
        spec=spec,
        fitted=fitted,
        normalizes=normalizes,
        params_sha256=sha256(params),
        probes_sha256=sha256(probe_bytes),
        promise=promise,
        min_cosine=min_cosine,
        query_encoder=query_encoder,
    )
    document = {"record": record.model_dump(mode="json"), "space_id": record.space_id, "provenance": dict(provenance)}
    return record.space_id, {DOCUMENT: seal(document), PARAMS: params, PROBES: probe_bytes}


def read_space(files: Mapping[str, bytes], *, space_id: str) -> Space:
    """Verify and open a space from the bytes of its `SPACE_FILES` by name.

    Raises
    ------
    IntegrityError
        If a file was changed after it was sealed, or the files are of another space; the message names the file.
    MismatchError
        If the fitted parameters no longer reproduce the recorded probes bit for bit.
    """
    document = unseal(files[DOCUMENT], name=DOCUMENT)
    if (stored_format := document["record"].get("format")) not in READABLE_FORMATS:
        raise IntegrityError(
            f"{DOCUMENT} of space {space_id[:16]}…: format {stored_format}; this version of isospace reads "
            f"{', '.join(map(str, READABLE_FORMATS))}. "
            "Fit a new space with runtime.refit=true (no text is re-encoded), or open it with the version that "
            "created it."
        )
    record = SpaceRecord.model_validate(document["record"])
    if record.space_id != space_id:
        raise IntegrityError(
            f"{DOCUMENT}: is space {record.space_id[:16]}…, expected {space_id[:16]}…. Restore the space, or delete "
            "its folder and refit with runtime.refit=true."
        )
    for name, expected in ((PARAMS, record.params_sha256), (PROBES, record.probes_sha256)):
        if (digest := sha256(files[name])) != expected:
            raise IntegrityError(
                f"{name} of space {space_id[:16]}… has SHA-256 {digest[:16]}…, expected {expected[:16]}…. Restore the "
                "space, or delete its folder and refit with runtime.refit=true."
            )
    transform = transform_from_arrays(
        _load(files[PARAMS], PARAMS),
        normalization=record.spec.normalization,
        representations=record.spec.representations,
        cells=record.spec.cells,
    )
    space = Space(record, transform, _load(files[PROBES], PROBES), document["provenance"])
    check_transform(space.transform, space.probes)
    return space


def _format(spec: TransformSpec, query_encoder: QueryEncoder | None) -> int:
    if spec.cells is not None:
        return WITH_CELLS
    return FORMAT if query_encoder is None else WITH_QUERY_ENCODER


def _load(data: bytes, name: str) -> Arrays:
    try:
        return dict(safetensors.numpy.load(data))
    except SafetensorError as error:
        raise IntegrityError(f"{name}: not a safetensors file ({error}). Restore the file.") from error


def _contiguous(arrays: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    # safetensors writes the underlying memory: a transposed view would be read back wrong.
    return {name: array.copy(order="C") for name, array in arrays.items()}
