"""Fit a space on a sample of the collection, and seal it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from isospace.collection.origins import origin_of
from isospace.collection.raw_vectors import vector_origins
from isospace.encoding.bits import computed_by
from isospace.encoding.encoder import Encoder, truncation_is_meant
from isospace.encoding.probing import record_probes
from isospace.encoding.role_encoders import RoleEncoders, query_encoder_of, sentence_encoder_of
from isospace.errors import ConfigError, FitError, MismatchError
from isospace.pipeline.fit.choose import choose
from isospace.pipeline.fit.evidence import Evidence, gather_evidence
from isospace.pipeline.fit.sample import chunk_hashes, sample_vectors
from isospace.pipeline.preflight import with_hashed_files
from isospace.pipeline.run import Run
from isospace.storage import paths as layout
from isospace.transform.affine import apply_affine
from isospace.transform.cells_spec import cell_count, cell_sample
from isospace.transform.distortion import cluster, measure_distortion
from isospace.transform.error_bounds import error_bound
from isospace.transform.fit import estimate, fit, fit_affine, held_out_variance, held_out_warnings
from isospace.transform.probe_texts import PROBE_TEXTS
from isospace.transform.probes import Arrays
from isospace.transform.quantizer_set import fit_quantizers
from isospace.transform.quantizers.fit_cells import fit_cells
from isospace.transform.representations import code_bytes
from isospace.transform.space import DOCUMENT, Promise, seal_space
from isospace.transform.spec import AutoSpec, FitSpec, TransformSpec
from isospace.transform.transform import Transform
from isospace.transform.vectors import Float32

_DISTORTION_SAMPLE = 5_000
# Of some 15 probes, encoders that share a space find nearly all, and others one by chance.
_LEAST_FOUND = 1 / 3


def fit_space(run: Run, chunk_paths: Sequence[str], encoder: Encoder) -> str:
    """Fit and seal the space of a run.

    Parameters
    ----------
    run
        The run, whose recipe defines the fit.
    chunk_paths
        All chunk files of the collection; their texts have raw vectors.
    encoder
        Encodes the probes and queries: the run's encoder, or those of both roles.

    Returns
    -------
    str
        The space ID, which is equal for equal samples and recipes (and collections of equal size, if the number of
        cells follows from it).

    Raises
    ------
    FitError
        If the sample is too small for the fit, or no probe exercises one of its stages.
    MismatchError
        If the encoder is not that of the run.
    ConfigError
        If a query file has changed since the run started.
    """
    spec = run.config.recipe.transform
    queries = query_encoder_of(encoder)
    loaded = {"document": encoder.record.encoder_id, "query": queries.encoder_id if queries else None}
    for role, expected in (("document", run.encoder_id), ("query", run.query_encoder_id)):
        if loaded[role] != expected:
            raise MismatchError(
                f"the loaded encoder for role {role} is {_shown(loaded[role])}; expected {_shown(expected)}, the "
                "run's. Run the same command in a new process."
            )
    if with_hashed_files(spec) != run.transform:
        raise ConfigError(
            f"{spec.queries.file}: changed during the run. Leave the file as it is, and run the same command again."
        )
    sample = sample_vectors(run, chunk_paths, size=spec.sample.size, dimension=encoder.record.dimension)
    automatic = isinstance(spec.fit, AutoSpec)
    evidence = gather_evidence(run, chunk_paths, encoder, choosing=automatic) if spec.needs_queries else None
    chunks, more = 0, None
    if spec.cells is not None:
        chunks = sum(1 for _ in chunk_hashes(run, chunk_paths))
        size = cell_sample(spec.cells, chunks=chunks)
        if size > spec.sample.size:
            more = sample_vectors(run, chunk_paths, size=size, dimension=encoder.record.dimension)
    fitted = fit_transform(spec, sample, evidence, _raw_queries(encoder), chunks=chunks, cell_vectors=more)
    probes, described = record_probes(encoder, fitted.transform, fitted.spec)
    space_id, files = seal_space(
        encoder_id=run.encoder_id,
        spec=run.transform,
        fitted=fitted.spec,
        normalizes=encoder.record.normalizes,
        transform=fitted.transform,
        probes=probes,
        promise=_promise(run, encoder),
        query_encoder=queries,
        min_cosine=sentence_encoder_of(encoder, "document").min_cosine,
        provenance={
            "run_id": run.run_id,
            "collection": run.collection,
            "engine": computed_by(sentence_encoder_of(encoder, "document")),
            **({"query_engine": computed_by(sentence_encoder_of(encoder, "query"))} if queries else {}),
            "probes": described,
            **fitted.provenance,
            "warnings": [*fitted.provenance["warnings"], *_foreign(encoder, probes)],
        },
    )
    folder = layout.space_folder(space_id)
    # space.json comes last: if it exists, the space is complete. The folder is named by a fingerprint of the content,
    # so that an existing file that differs is damaged; only the provenance in space.json may differ.
    for name in sorted(files, key=lambda name: name == DOCUMENT):
        path = f"{folder}/{name}"
        if (
            not run.store.create_if_absent(path, files[name])
            and name != DOCUMENT
            and run.store.read(path) != files[name]
        ):
            run.store.write(path, files[name])
    return space_id


def _shown(encoder_id: str | None) -> str:
    return "that of documents" if encoder_id is None else f"{encoder_id[:16]}…"


def _raw_queries(encoder: Encoder) -> Float32 | None:
    """Return raw vectors of some queries, if those of documents do not tell how long they are."""
    if not isinstance(encoder, RoleEncoders):
        return None
    with truncation_is_meant():
        return encoder.encode(PROBE_TEXTS, "query")


def _foreign(encoder: Encoder, probes: Arrays) -> list[str]:
    """Warn if the encoders of both roles seem to share no space: a query finds itself among documents by chance only.

    Nothing else would tell: two models of equal dimension give vectors that can be compared, and mean nothing.
    """
    if not isinstance(encoder, RoleEncoders):
        return []
    both, documents, queries = np.intersect1d(probes["document.encoded"], probes["query.encoded"], return_indices=True)
    cosines = _unit(probes["query.raw"][queries]) @ _unit(probes["document.raw"][documents]).T
    found = int((cosines.argmax(axis=1) == np.arange(len(both))).sum())
    if found >= _LEAST_FOUND * len(both):
        return []
    return [
        f"recipe.query_encoder and recipe.encoder seem to share no space: of {len(both)} probe texts, only {found} are "
        "nearest to themselves when one encodes them as queries and the other as documents. Use models that were "
        "trained together, or measure retrieval with `isospace evaluate` before you serve this"
    ]


def _unit(vectors: Float32) -> npt.NDArray[np.float64]:
    wide = vectors.astype(np.float64)
    lengths: npt.NDArray[np.float64] = np.linalg.norm(wide, axis=1, keepdims=True)
    unit: npt.NDArray[np.float64] = wide / np.maximum(lengths, np.finfo(np.float64).tiny)
    return unit


def _promise(run: Run, encoder: Encoder) -> Promise:
    """Return `bitwise` only if all raw vectors have the bits that this encoder computes for documents.

    It holds for the moment of the fit: what later snapshots may promise depends on the vectors that are added.
    """
    here = origin_of(computed_by(sentence_encoder_of(encoder, "document")))
    same = all(origin.bits_class == here.bits_class for origin in vector_origins(run.store, run.encoder_id))
    return "bitwise" if same and here.is_reproducible else "within tolerance"


@dataclass(frozen=True, slots=True)
class FittedTransform:
    """A fitted transform.

    Attributes
    ----------
    spec
        The fit of the recipe, or the one that was chosen.
    provenance
        `fit`: its figures; `cells`: their number and how even they are, if there are any; `choice`: the evidence for
        the fit; `queries`: what the queries were; `warnings`.
    """

    transform: Transform
    spec: FitSpec
    provenance: dict[str, Any]


def fit_transform(
    spec: TransformSpec,
    sample: Float32,
    evidence: Evidence | None,
    queries: Float32 | None = None,
    *,
    chunks: int | None = None,
    cell_vectors: Float32 | None = None,
) -> FittedTransform:
    """Fit affine map and quantizers on (n, d) raw vectors.

    Parameters
    ----------
    spec
        `recipe.transform`.
    sample
        (n, d) float32 raw vectors of documents.
    evidence
        Of queries, for fits that need them.
    queries
        (m, d) float32 raw vectors of queries from another encoder: they may be longer than those of documents, and must
        fit the map's bounds.
    chunks
        Number of chunks of the collection, on which the number of cells may depend; by default that of the sample.
    cell_vectors
        (c, d) raw vectors of documents that the cells are fitted on; by default, the sample.

    Raises
    ------
    FitError
        If the sample is too small for the fit or the cells, or `auto` has no evidence.
    """
    if not len(sample):
        raise FitError("the collection has no chunks to fit a space on. Embed a source with readable text.")
    normalize = spec.normalization == "l2"
    provenance: dict[str, Any] = {}
    warnings: list[str] = []
    # One thread: more would change the order of sums, so that equal samples could give spaces with different last bits.
    with threadpool_limits(limits=1):
        estimates = estimate(sample, evidence.queries if evidence else None, truncate=spec.truncate)
        ratio, chosen = spec.sample.min_ratio, spec.fit
        if isinstance(chosen, AutoSpec):
            if evidence is None:
                raise FitError(
                    "fit kind auto compares candidates on queries, and there are none. Call gather_evidence first."
                )
            choice = choose(estimates, evidence, chosen, normalize=normalize)
            provenance["choice"] = choice.as_dict()
            warnings += choice.warnings
            # Retrieval has shown whether the sample was large enough.
            ratio, chosen = 0.0, choice.chosen
        fitted = fit(estimates, chosen, min_ratio=ratio)
        held_out = held_out_variance(sample, chosen, truncate=spec.truncate)
    bounding = [sample] if queries is None else [sample, queries, *([evidence.queries] if evidence else [])]
    affine = fit_affine(fitted, np.concatenate(bounding))
    vectors, clipped = apply_affine(affine, sample, role="document", normalize=normalize)
    transform = Transform(affine, spec.normalization, fit_quantizers(vectors, spec.representations))
    warnings += [*fitted.warnings, *held_out_warnings(held_out)]
    if spec.cells is not None:
        more = vectors
        if cell_vectors is not None:
            more, _ = apply_affine(affine, cell_vectors, role="document", normalize=normalize)
        count = cell_count(spec.cells, chunks=len(sample) if chunks is None else chunks, sampled=len(more))
        cells = fit_cells(spec.cells, more, count, spherical=normalize)
        transform = replace(transform, cells=cells.quantizer)
        provenance["cells"] = cells.figures()
        warnings += cells.warnings
    if evidence is not None:
        provenance["queries"] = evidence.source
    provenance["representations"] = _distortions(transform, vectors)
    figures = {**fitted.diagnostics, "clipped": clipped, "held_out_variance": held_out}
    bound = error_bound(affine, fitted.matrix, fitted.offsets, sample)
    return FittedTransform(transform, chosen, {**provenance, "fit": {**figures, **bound}, "warnings": warnings})


def _distortions(transform: Transform, vectors: npt.NDArray[np.float32]) -> dict[str, dict[str, float]]:
    """Measure the loss of each representation on some vectors of the sample."""
    some = vectors[:_DISTORTION_SAMPLE]
    clusters = cluster(some)
    quantizers = transform.quantizers
    return {
        spec.name: {
            "bytes": code_bytes(spec, transform.dimension),
            **measure_distortion(quantizers.by_name[spec.name], some, clusters=clusters).summary(),
        }
        for spec in quantizers.specs
    }
