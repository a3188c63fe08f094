"""A recipe in words: what was done to each document, for people who do not read the configuration."""

from __future__ import annotations

from isospace.encoding.registry.record import EncoderRecord
from isospace.encoding.sparse.spec import SparseSpec
from isospace.encoding.spec import AnyEncoderSpec
from isospace.ingest.spec import ChunkingSpec, DocumentsSpec
from isospace.pipeline.config import Recipe
from isospace.search.spec import LexicalSpec
from isospace.transform.representations import code_bytes
from isospace.transform.space import SpaceRecord
from isospace.transform.spec import FitSpec

_FITS = {
    "none": "are not changed",
    "center": "are moved so that their mean is zero",
    "zscore": "are moved and scaled so that each dimension has mean 0 and deviation 1",
    "minmax": "are scaled so that each dimension has the same range",
    "zca": "are centered and whitened (ZCA)",
    "pca_whitening": "are centered, rotated to their principal components, and whitened",
    "pca": "are centered and rotated to their principal components",
    "all_but_the_top": "are centered, and lose their first principal components",
}


def recipe_rows(
    recipe: Recipe, encoder: EncoderRecord, space: SpaceRecord, queries: EncoderRecord | None = None
) -> list[tuple[str, str]]:
    """Return the steps of a recipe in their order, each as a name and a sentence.

    `queries` is the encoder of queries, if it is not that of documents.
    """
    return [
        ("documents", _documents(recipe.documents)),
        ("chunks", _chunks(recipe.chunking, encoder)),
        ("model", _model(recipe.encoder, encoder)),
        *([("model for queries", _model(recipe.query_encoder or recipe.encoder, queries))] if queries else []),
        ("raw vectors", _fit(space.fitted, recipe.transform.fit.kind == "auto")),
        ("stored vectors", _stored(space)),
        ("word search", _lexical(recipe.lexical)),
        *([] if recipe.sparse is None else [("sparse vectors", _sparse(recipe.sparse))]),
        (
            "gate",
            f"{len(recipe.gate.rules)} rules"
            if recipe.gate.rules
            else "none: every snapshot is promoted, unless the alias is held",
        ),
    ]


def _documents(spec: DocumentsSpec) -> str:
    title = f", titled by the column {spec.title_column}" if spec.title_column else ""
    rows = f"each row of a table is a document (text: {' and '.join(spec.text_columns)}{title})"
    files = f"each file is a document ({', '.join(spec.include)})"
    match spec.format:
        case "files":
            return f"{_capitalized(files)}."
        case "auto":
            return f"{_capitalized(rows)}; otherwise {files}."
        case _:
            return f"{_capitalized(rows)}, read as {spec.format}."


def _chunks(spec: ChunkingSpec, encoder: EncoderRecord) -> str:
    title = " The title of its document is put before each chunk." if spec.include_title else ""
    title += " The headings above a chunk are put before it." if spec.include_headings else ""
    if spec.kind == "none":
        return f"Each document is one chunk.{title}"
    most = min(spec.max_tokens or encoder.max_tokens, encoder.max_tokens)
    overlap = f", each repeating about {spec.overlap_tokens} tokens of the one before" if spec.overlap_tokens else ""
    return (
        f"Documents are split at headings, paragraphs, and sentences into chunks of at most {most:,} "
        f"tokens{overlap}.{title}"
    )


def _model(spec: AnyEncoderSpec, encoder: EncoderRecord) -> str:
    revision = f" at revision {spec.revision[:12]}" if spec.revision else ""
    prompts = [f"“{text}” before every {role}" for role, text in encoder.prompts.items() if text]
    words = [
        f"{spec.model}{revision}, {encoder.dimension:,} dimensions, at most {encoder.max_tokens:,} tokens",
        f"pooling: {', '.join(encoder.pooling)}" if encoder.pooling else "",
        _computed(encoder),
        _parameters(encoder),
        f"prompts: {' and '.join(prompts)}" if prompts else "no prompts",
        "windows over longer texts" if encoder.windows is not None else "",
    ]
    return "; ".join(word for word in words if word) + "."


def _computed(encoder: EncoderRecord) -> str:
    if encoder.served is None:
        return f"computed in {encoder.precision}"
    return f"computed behind an API ({encoder.served.protocol})"


def _parameters(encoder: EncoderRecord) -> str:
    """Return what requests say of their role."""
    by_role = encoder.served.parameters if encoder.served else {}
    named = [
        f"{', '.join(f'{name}={value}' for name, value in sent.items())} with every {role}"
        for role, sent in by_role.items()
        if sent
    ]
    return " and ".join(named)


def _fit(fitted: FitSpec, is_chosen: bool) -> str:
    own = fitted.kind != "none" and fitted.means == "by_role"
    means = ", with a mean of their own for queries" if own else ""
    chosen = " The map was chosen by retrieval on held-out queries." if is_chosen else ""
    words = "" if fitted.kind == "none" else f" ({fitted.describe()})"
    return f"They {_FITS[fitted.kind]}{means}{words}.{chosen}"


def _stored(space: SpaceRecord) -> str:
    length = "scaled to length 1" if space.spec.normalization == "l2" else "not normalized"
    sizes = [f"{spec.name} ({code_bytes(spec, space.dimension):,} bytes)" for spec in space.spec.representations]
    cells = "" if space.spec.cells is None else " Each vector belongs to a cell, for approximate searches."
    return f"{space.dimension:,} dimensions, {length}; per chunk: {', '.join(sizes)}.{cells}"


def _lexical(spec: LexicalSpec) -> str:
    if spec.kind == "none":
        return "none."
    stemmer = f"{spec.stemmer} stemming" if spec.stemmer else "no stemming"
    stopwords = f"without {spec.stopwords} stopwords" if spec.stopwords else "with all words"
    return f"BM25, {stemmer}, {stopwords}."


def _sparse(spec: SparseSpec) -> str:
    revision = f" at revision {spec.revision[:12]}" if spec.revision else ""
    return f"{spec.model}{revision}, weights in {spec.bits} bits, for the modes sparse and hybrid."


def _capitalized(text: str) -> str:
    return text[0].upper() + text[1:]
