"""The space: encoder, transform and probes, sealed and immutable.

Reads and writes bytes by file name; where the files lie is `isospace.encoding.embedder`'s business. NumPy alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy.typing as npt
import safetensors.numpy
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError

from isospace.errors import IntegrityError
from isospace.storage.hashing import fingerprint, seal, sha256, unseal
from isospace.transform.probes import Arrays, check_transform
from isospace.transform.quantizer_set import Representation
from isospace.transform.spec import FitSpec, TransformSpec
from isospace.transform.transform import Transform, transform_arrays, transform_from_arrays

FORMAT = 2
DOCUMENT, PARAMS, PROBES = "space.json", "params.safetensors", "probes.safetensors"
SPACE_FILES = (DOCUMENT, PARAMS, PROBES)
Promise = Literal["bitwise", "within tolerance"]


class SpaceRecord(BaseModel):
    """Identity of a space: what space.json holds beside its provenance."""

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

    @property
    def space_id(self) -> str:
        """Fingerprint of this record, and through its hashes of every fitted bit."""
        return fingerprint(self.model_dump(mode="json"))

    @property
    def representations(self) -> tuple[Representation, ...]:
        """What is stored of every vector; the first one is searched."""
        return tuple(spec.name for spec in self.spec.representations)


@dataclass(frozen=True, slots=True)
class Space:
    """An opened space.

    Attributes
    ----------
    record
        Its identity.
    transform
        The fitted chain.
    probes
        Recorded outcomes of the reference texts.
    provenance
        Where and when it was fitted, diagnostics of the fit; no part of the identity.
    """

    record: SpaceRecord
    transform: Transform
    probes: Arrays
    provenance: dict[str, Any]

    @property
    def space_id(self) -> str:
        """The fingerprint."""
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
) -> tuple[str, dict[str, bytes]]:
    """Serialize a space.

    Parameters
    ----------
    encoder_id, spec, transform, probes
        What it consists of.
    fitted
        The fit that was taken: that of the recipe, or the one that was chosen.
    normalizes
        Whether the encoder's raw vectors are of unit length already.
    promise
        Whether a text's raw vector has the same bits in whatever batch it was encoded, on one machine.
    min_cosine
        Tolerance of raw vectors between machines and backends.
    provenance
        Where and when; no part of the identity.

    Returns
    -------
    tuple
        The space_id, and the bytes of its files by name.
    """
    params = safetensors.numpy.save(_contiguous(transform_arrays(transform)))
    probe_bytes = safetensors.numpy.save(_contiguous(probes))
    record = SpaceRecord(
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
    )
    document = {"record": record.model_dump(mode="json"), "space_id": record.space_id, "provenance": dict(provenance)}
    return record.space_id, {DOCUMENT: seal(document), PARAMS: params, PROBES: probe_bytes}


def read_space(files: Mapping[str, bytes], *, space_id: str) -> Space:
    """Verify and open a space.

    Parameters
    ----------
    files
        The bytes of `SPACE_FILES` by name.
    space_id
        Which space is expected.

    Returns
    -------
    Space

    Raises
    ------
    IntegrityError
        If a file is not what was sealed; the message names it.
    MismatchError
        If the fitted parameters no longer reproduce the recorded probes bit for bit.
    """
    document = unseal(files[DOCUMENT], name=DOCUMENT)
    if (found_format := document["record"].get("format")) != FORMAT:
        raise IntegrityError(
            f"{DOCUMENT} of space {space_id[:16]}…: format {found_format}; this isospace reads {FORMAT}. Fit a new "
            "space with runtime.refit=true (no text is encoded again), or open it with the version that made it."
        )
    record = SpaceRecord.model_validate(document["record"])
    if record.space_id != space_id:
        raise IntegrityError(
            f"{DOCUMENT}: is space {record.space_id[:16]}…, expected {space_id[:16]}…. Restore the space, or delete "
            "its folder and fit again with runtime.refit=true."
        )
    for name, expected in ((PARAMS, record.params_sha256), (PROBES, record.probes_sha256)):
        if (found := sha256(files[name])) != expected:
            raise IntegrityError(
                f"{name} of space {space_id[:16]}… has SHA-256 {found[:16]}…, expected {expected[:16]}…. Restore the "
                "space, or delete its folder and fit again with runtime.refit=true."
            )
    transform = transform_from_arrays(
        _load(files[PARAMS], PARAMS),
        normalization=record.spec.normalization,
        representations=record.spec.representations,
    )
    space = Space(record, transform, _load(files[PROBES], PROBES), document["provenance"])
    check_transform(space.transform, space.probes)
    return space


def _load(data: bytes, name: str) -> Arrays:
    try:
        return dict(safetensors.numpy.load(data))
    except SafetensorError as error:
        raise IntegrityError(f"{name}: not a safetensors file ({error}). Restore the file.") from error


def _contiguous(arrays: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    # safetensors writes the memory as it lies: a transposed view would come back wrong.
    return {name: array.copy(order="C") for name, array in arrays.items()}
