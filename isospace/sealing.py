"""Fit a space on a sample of the domain, and seal it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from isospace import layout
from isospace.affine import apply_affine
from isospace.encoder import SentenceEncoder
from isospace.errors import FitError
from isospace.fit import fit, fit_affine
from isospace.moments import stream_moments
from isospace.probes import make_probes
from isospace.quantize import fit_quantizers
from isospace.run import Run
from isospace.sample import sample_vectors
from isospace.space import DOCUMENT, Promise, seal_space
from isospace.transform import Transform
from isospace.vectors import ENGINE_KEYS, vector_engines


def fit_space(run: Run, chunk_paths: Sequence[str], encoder: SentenceEncoder) -> str:
    """Fit and seal the space of a run.

    Parameters
    ----------
    run
        The run; its recipe says what is fitted.
    chunk_paths
        All chunks parts of the collection; their texts have raw vectors.
    encoder
        For the probes.

    Returns
    -------
    str
        The space_id. Equal samples and recipes give an equal one.

    Raises
    ------
    FitError
        If the sample cannot carry the fit.
    """
    spec = run.config.recipe.transform
    sample = sample_vectors(run, chunk_paths, size=spec.sample.size, dimension=encoder.record.dimension)
    transform, diagnostics = fit_transform(run, sample)
    probes = make_probes(transform, encoder.tokenize, encoder.encode, limit=encoder.record.max_tokens)
    space_id, files = seal_space(
        encoder_id=run.encoder_id,
        spec=spec,
        transform=transform,
        probes=probes,
        promise=_promise(run, encoder),
        min_cosine=encoder.record.min_cosine,
        provenance={
            "run_id": run.run_id,
            "collection": run.collection,
            "engine": encoder.backend.engine(),
            "fit": diagnostics,
        },
    )
    folder = layout.space_folder(space_id)
    # space.json last: a space whose document exists is whole. What exists and differs was damaged, since the name is
    # the fingerprint of the content; only the provenance in space.json may differ.
    for name in sorted(files, key=lambda name: name == DOCUMENT):
        path = f"{folder}/{name}"
        if (
            not run.store.create_if_absent(path, files[name])
            and name != DOCUMENT
            and run.store.read(path) != files[name]
        ):
            run.store.write(path, files[name])
    return space_id


def _promise(run: Run, encoder: SentenceEncoder) -> Promise:
    """Say bitwise only where every raw vector there is was computed by what would compute a query here."""
    engine = encoder.backend.engine()
    same = vector_engines(run.store, run.encoder_id) <= {tuple(engine[key] for key in ENGINE_KEYS)}
    return "bitwise" if same and encoder.backend.is_batch_invariant else "within tolerance"


def fit_transform(run: Run, sample: npt.NDArray[np.float32]) -> tuple[Transform, dict[str, float]]:
    """Fit affine map and quantizers on (n, d) raw vectors; return them with figures of the fit."""
    spec = run.config.recipe.transform
    if not len(sample):
        raise FitError("the collection holds no chunk to fit a space on. Embed a source with readable text.")
    fitted = fit(stream_moments(sample), spec.whitening, min_ratio=spec.sample.min_ratio)
    affine = fit_affine(fitted, sample)
    vectors, clipped = apply_affine(affine, sample, role="document", normalize=spec.normalization == "l2")
    quantizers = fit_quantizers(vectors, spec.representations, int8_percentile=spec.int8_percentile)
    return Transform(affine, spec.normalization, quantizers), {**fitted.diagnostics, "clipped": float(clipped)}
