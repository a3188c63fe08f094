"""Refuse a recipe that cannot work before the first document is read."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from isospace.encoding.registry.presets import find_preset
from isospace.encoding.registry.record import EncoderRecord
from isospace.encoding.role_encoders import require_pair
from isospace.encoding.spec import AnyEncoderSpec
from isospace.errors import ConfigError, install_command
from isospace.ingest.query_files import read_bytes, read_judgements, read_queries
from isospace.pipeline.config import Recipe
from isospace.storage.hashing import sha256
from isospace.transform.representations import PqSpec, RepresentationSpec, ShortSpec, require_valid_dimension
from isospace.transform.spec import AutoSpec, FitSpec, QueriesSpec, TransformSpec


def require_feasible(recipe: Recipe, record: EncoderRecord) -> None:
    """Check a recipe's transform against the encoder, and read the query files that it names.

    Raises
    ------
    ConfigError
        If a dimension exceeds that of the model, sub-vectors do not divide it, the model was not trained to be
        truncated, or a query file cannot be read.
    """
    spec = recipe.transform
    _require_trained(spec, recipe.encoder, record)
    dimension = spec.truncate or record.dimension
    if dimension > record.dimension:
        raise ConfigError(
            f"recipe.transform.truncate = {dimension} exceeds the {record.dimension} dimensions of the model."
        )
    fits = (FitSpec(), *spec.fit.candidates) if isinstance(spec.fit, AutoSpec) else (spec.fit,)
    for fit in fits:
        if (fit.dimensions or 0) > dimension or (fit.kind == "all_but_the_top" and fit.components >= dimension):
            raise ConfigError(
                f"recipe.transform.fit: {fit.describe()} needs more than the {dimension} dimensions of the vectors."
            )
        for representation in spec.representations:
            require_valid_dimension(representation, fit.dimensions or dimension)
            _require_ordered(representation, fit, recipe.encoder)
    if spec.needs_queries and spec.queries.file:
        read_queries(Path(spec.queries.file))
        if spec.queries.judgements:
            read_judgements(Path(spec.queries.judgements))


def require_faiss(spec: TransformSpec) -> None:
    """Raise ConfigError if the fit needs faiss and it is missing; a sealed space can be used without it."""
    needing = []
    if any(isinstance(representation, PqSpec) for representation in spec.representations):
        needing.append("recipe.transform.representations: training pq and opq needs faiss")
    if spec.cells is not None:
        needing.append("recipe.transform.cells: training cells needs faiss")
    if needing and importlib.util.find_spec("faiss") is None:
        raise ConfigError(f"{needing[0]}. Run: {install_command('pq')}")


def require_feasible_pair(recipe: Recipe, document: EncoderRecord, query: EncoderRecord) -> None:
    """Check that documents and queries of two encoders can be compared after the recipe's transform.

    Raises
    ------
    ConfigError
        If their dimensions differ; or if only one encoder normalizes, and the transform does not make up for it.
    """
    require_pair(document, query)
    if document.normalizes == query.normalizes:
        return
    lengths = {True: "have length 1", False: "do not"}
    differ = (
        f"raw vectors of documents {lengths[document.normalizes]}, and those of queries "
        f"{lengths[query.normalizes]} (recipe.encoder and recipe.query_encoder)"
    )
    spec = recipe.transform
    if spec.normalization == "none":
        raise ConfigError(
            f"recipe.transform.normalization = none: {differ}, so that scores would be no cosines. Set it to l2."
        )
    if isinstance(spec.fit, FitSpec) and spec.fit.kind != "none" and spec.fit.means == "shared":
        raise ConfigError(
            f"recipe.transform.fit ({spec.fit.describe()}) subtracts the documents' mean from queries, but {differ}. "
            "Set recipe.transform.fit.means=by_role, or use a fit of kind none or auto."
        )


def _require_trained(spec: TransformSpec, encoder: AnyEncoderSpec, record: EncoderRecord) -> None:
    if spec.truncate is None or spec.allow_untrained_truncation:
        return
    preset = find_preset(encoder)
    trained = preset.matryoshka if preset else ()
    if spec.truncate in trained or spec.truncate == record.dimension:
        return
    known = f"was trained for {', '.join(map(str, trained))}" if trained else "is not known as a Matryoshka model"
    raise ConfigError(
        f"recipe.transform.truncate = {spec.truncate}: {encoder.model} {known}; only a model trained for it "
        "concentrates information in its first dimensions. Use recipe.transform.fit.kind=pca with dimensions, or set "
        "recipe.transform.allow_untrained_truncation=true."
    )


def _require_ordered(spec: RepresentationSpec, fit: FitSpec, encoder: AnyEncoderSpec) -> None:
    """Refuse leading dimensions of vectors that are not ordered by importance."""
    if not isinstance(spec, ShortSpec) or spec.basis != "leading" or fit.kind in ("pca", "pca_whitening"):
        return
    preset = find_preset(encoder)
    if preset is None or spec.dimensions not in preset.matryoshka or fit.kind != "none":
        raise ConfigError(
            f"representation {spec.name}: basis = leading needs a fit of kind pca, or a Matryoshka model trained for "
            f"{spec.dimensions} dimensions and a fit of kind none. Use basis pca."
        )


def with_hashed_files(spec: TransformSpec) -> TransformSpec:
    """Replace the paths of query files by hashes of their content, so that only the content affects identity.

    A fit that uses no queries does not depend on them at all.

    Raises
    ------
    ConfigError
        If a file cannot be read.
    """
    if not spec.needs_queries:
        return spec.model_copy(update={"queries": QueriesSpec()})
    named = {
        field: f"sha256:{sha256(read_bytes(Path(path)))}"
        for field in ("file", "judgements")
        if (path := getattr(spec.queries, field)) is not None
    }
    return spec.model_copy(update={"queries": spec.queries.model_copy(update=named)}) if named else spec
