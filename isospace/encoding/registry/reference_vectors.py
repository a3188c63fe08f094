"""Reference vectors of an encoder: its probes, computed by torch on the CPU to check every backend.

Those of a static model come from its only backend, which was compared with the model's library.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import safetensors.numpy

from isospace.encoding.encoder import LoadedEncoder, SentenceEncoder, tokenize
from isospace.encoding.graphs.export import (
    export_graph,
    open_contents,
    pooled_model,
    require_equal_lengths,
    save_reference,
    smallest_cosine,
)
from isospace.encoding.precision import MIN_COSINE
from isospace.encoding.registry.files import ExportKind, fetch_export, read_export
from isospace.encoding.registry.model_loading import LoadedModel, load_model
from isospace.encoding.registry.model_source import ModelSource
from isospace.encoding.registry.record import EncoderRecord
from isospace.encoding.registry.static_source import require_equal_to_library, static_encoder
from isospace.encoding.tokenizer import Tokenizer
from isospace.errors import EncoderError, NotFoundError
from isospace.storage.store import Store
from isospace.transform.affine import ROLES, Role
from isospace.transform.probe_texts import PROBE_TEXTS
from isospace.transform.vectors import Float32

if TYPE_CHECKING:
    from isospace.encoding.served.encoder import ServedEncoder


def check_reference(store: Store, encoder: LoadedEncoder) -> float:
    """Encode the probes and compare them with the encoder's reference.

    Returns
    -------
    float
        The smallest cosine.

    Raises
    ------
    EncoderError
        If it is below the encoder's tolerance: the vectors would not belong to the same space.
    """
    record = encoder.record
    if record.served is not None:
        from isospace.encoding.served.registration import check_served

        return check_served(store, cast("ServedEncoder", encoder))
    assert isinstance(encoder, SentenceEncoder)
    export = read_export(store, record.encoder_id, "reference")
    if export is None:
        raise NotFoundError(
            f"encoder {record.encoder_id[:16]}…: the store has no reference vectors for it. Run `isospace run` once."
        )
    path = fetch_export(store, record.encoder_id, export) / "reference.safetensors"
    loaded = safetensors.numpy.load(path.read_bytes())
    reference: dict[Role, Float32] = {role: loaded[role] for role in ROLES}
    vectors = reference_vectors(encoder)
    smallest = smallest_cosine(reference, vectors)
    if not smallest >= record.min_cosine:
        engine = ", ".join(f"{key} {value}" for key, value in encoder.backend.engine().items())
        raise EncoderError(
            f"{engine}: a probe has cosine {smallest:.6f} with the encoder's reference, expected at least "
            f"{record.min_cosine}. The vectors would not belong to the same space. Use another runtime.backend or "
            "runtime.compute, or make the precision part of the encoder with recipe.encoder.precision."
        )
    where = f"backend {encoder.backend.name}"
    require_equal_lengths(reference, vectors, min_cosine=record.min_cosine, where=where)
    return smallest


def reference_vectors(encoder: SentenceEncoder) -> dict[Role, Float32]:
    """Encode the probes that fit, in both roles."""
    texts = fitting_probes(encoder.tokenizer, encoder.record)
    return _by_role(encoder.record, lambda role: encoder.encode(texts, role))


def _by_role(record: EncoderRecord, encode: Callable[[Role], Float32]) -> dict[Role, Float32]:
    """Return the vectors of some texts in both roles, computed once if the roles do not differ.

    A role decides which prompt precedes a text, and how many tokens of it pooling skips, and nothing else.
    """
    document = encode("document")
    differ = any(by_role["document"] != by_role["query"] for by_role in (record.prompts, record.prompt_tokens))
    return {"document": document, "query": encode("query") if differ else document}


def fitting_probes(tokenizer: Tokenizer, record: EncoderRecord) -> list[str]:
    """Return the probes that fit the encoder in both roles."""
    ids = [tokenize(tokenizer, record, PROBE_TEXTS, role) for role in ROLES]
    return [
        text
        for text, *tokens in zip(PROBE_TEXTS, *ids, strict=True)
        if all(len(sequence) <= record.max_tokens for sequence in tokens)
    ]


def make_export(record: EncoderRecord, kind: ExportKind, source: ModelSource) -> tuple[dict[str, bytes], float | None]:
    """Export a model; return the files, and the smallest cosine of a probe with the float32 reference.

    Raises
    ------
    EncoderError
        If the vectors of the export differ from the model's beyond its tolerance.
    """
    match kind:
        case "tokenizer":
            return {"tokenizer.json": source.tokenizer.data}, None
        case "reference" if record.is_static:
            require_equal_to_library(record, source.static, source.folder)
            encoder = static_encoder(record, source.static)
            return {"reference.safetensors": save_reference(reference_vectors(encoder))}, None
        case "reference":
            vectors = _reference_of(record, source)
            if record.precision == "float32":
                _require_equal_to_library(record, source, vectors)
                return {"reference.safetensors": save_reference(vectors)}, None
            plain = _reference_of(_in_float32(record), source)
            return {"reference.safetensors": save_reference(vectors)}, smallest_cosine(plain, vectors)
        case _:
            if record.precision == "int8":
                return source.quantized, None
            contents = export_graph(kind, source.loaded, record)
            return contents, _require_equal_graph(record, source, kind, contents)


def _reference_of(record: EncoderRecord, source: ModelSource) -> dict[Role, Float32]:
    """Encode the probes on the CPU, in the precision of the record."""
    if record.precision == "int8":
        backend = open_contents("openvino", source.quantized, precision="int8")
        return reference_vectors(SentenceEncoder(record, source.loaded.tokenizer, backend))
    try:
        if record.precision == "float32":
            return _plain_vectors(record, source)
        return reference_vectors(_torch(record, source))
    except KeyError as error:
        # Only code that comes with a model gets this far.
        raise EncoderError(
            f"model {source.spec.model}: one of its modules ({', '.join(record.modules)}) reads {error}, which "
            "isospace does not hand on. Use another model."
        ) from error


def _plain_vectors(record: EncoderRecord, source: ModelSource) -> dict[Role, Float32]:
    """Return the probes' vectors by torch in float32; the reference and every graph of a source share them."""
    return _kept(source, "probes", lambda: reference_vectors(_torch(_in_float32(record), source)))


def _plain_longest(record: EncoderRecord, source: ModelSource) -> dict[Role, Float32]:
    """Return the longest text's vectors by torch in float32; the reference and every graph of a source share them."""
    return _kept(source, "longest", lambda: longest_vectors(_torch(_in_float32(record), source)))


def _kept(source: ModelSource, name: str, compute: Callable[[], dict[Role, Float32]]) -> dict[Role, Float32]:
    """Return vectors that were computed for a source before, or compute them.

    They come from the model before it is exported, so that an export that changed it would be noticed.
    """
    if name not in source.torch_vectors:
        source.torch_vectors[name] = compute()
    return source.torch_vectors[name]


def _in_float32(record: EncoderRecord) -> EncoderRecord:
    return record.model_copy(update={"precision": "float32"})


def _torch(record: EncoderRecord, source: ModelSource) -> SentenceEncoder:
    """Return the model in torch on the CPU, in the precision of the record."""
    if record.precision == "float32":
        return _torch_of(record, source.loaded)
    # Load a copy: the conversion to a lower precision would change the loaded model.
    return _torch_of(record, load_model(source.folder, trust_remote_code=source.spec.trust_remote_code))


def _torch_of(record: EncoderRecord, loaded: LoadedModel) -> SentenceEncoder:
    from isospace.encoding.backends.torch import open_torch

    backend = open_torch(
        pooled_model(loaded, record.pooling),
        limit=record.max_tokens,
        device="cpu",
        precision=record.precision,
        batch_tokens=None,
        compiled=False,
        flattened=False,
        threads=None,
    )
    return SentenceEncoder(record, loaded.tokenizer, backend)


def _require_equal_to_library(record: EncoderRecord, source: ModelSource, vectors: dict[Role, Float32]) -> None:
    """Compare the reference with sentence-transformers' own vectors of the probes and the longest text.

    The model is loaded a second time: weights that are missing from the files are initialized randomly at every load.
    """
    from isospace.encoding.graphs.pooled_model import own_poolings

    again = load_model(source.folder, trust_remote_code=source.spec.trust_remote_code)
    model = again.model.float()
    try:
        longest = _plain_longest(record, source)
        if record.pooling == own_poolings(list(model)):
            model.max_seq_length = record.max_tokens
            theirs = _by_library(record, model, fitting_probes(again.tokenizer, record))
            smallest = min(
                smallest_cosine(theirs, vectors),
                smallest_cosine(_by_library(record, model, [long_text(record.max_tokens)]), longest),
            )
        else:
            theirs = reference_vectors(_torch_of(record, again))
            smallest = smallest_cosine(theirs, vectors)
    except (RuntimeError, IndexError) as error:
        reason = " ".join(str(error).split())[:200]
        raise EncoderError(
            f"model {source.spec.model}: cannot encode a text of {record.max_tokens} tokens ({reason}). Set "
            "recipe.encoder.max_tokens to the length that the model was trained for."
        ) from error
    if not smallest >= record.min_cosine:
        raise EncoderError(
            f"model {source.spec.model}: a probe has cosine {smallest:.6f} with what sentence-transformers computes, "
            f"expected at least {record.min_cosine}. The files lack weights, or the model has a step between tokens "
            f"and vector that isospace does not support (modules: {', '.join(record.modules)}). Use another model."
        )
    require_equal_lengths(theirs, vectors, min_cosine=record.min_cosine, where=f"model {source.spec.model}")


def _by_library(record: EncoderRecord, model: Any, texts: list[str]) -> dict[Role, Float32]:
    return _by_role(record, lambda role: model.encode(texts, prompt=record.prompts[role], show_progress_bar=False))


def _require_equal_graph(
    record: EncoderRecord, source: ModelSource, kind: ExportKind, contents: dict[str, bytes]
) -> float:
    """Compare an exported graph with torch on the probes and the longest text; return the lowest cosine.

    Different lengths matter: tracing can freeze what depends on the length, such as attention windows or position
    tables.
    """
    backend = open_contents(kind, contents, precision="float32")
    exported = SentenceEncoder(record, source.loaded.tokenizer, backend)
    expected, found = _plain_vectors(record, source), reference_vectors(exported)
    smallest = min(
        smallest_cosine(expected, found),
        smallest_cosine(_plain_longest(record, source), longest_vectors(exported)),
    )
    if not smallest >= MIN_COSINE["float32"]:
        raise EncoderError(
            f"backend {kind}: a vector of the exported graph has cosine {smallest:.6f} with the model's, expected at "
            f"least {MIN_COSINE['float32']}. The graph cannot be used; set runtime.backend=torch."
        )
    require_equal_lengths(expected, found, min_cosine=MIN_COSINE["float32"], where=f"backend {kind}")
    return smallest


def longest_vectors(encoder: SentenceEncoder) -> dict[Role, Float32]:
    """Encode one text with the encoder's maximum number of tokens, in both roles."""
    record = encoder.record

    def encode(role: Role) -> Float32:
        prompt = record.prompts[role]
        tokens = encoder.tokenizer.tokens([long_text(record.max_tokens)], prompt=prompt, limit=record.max_tokens)
        vectors = np.empty((1, record.dimension), np.float32)
        encoder.backend.run([encoder.batch([0], tokens, role)], vectors)
        return vectors

    return _by_role(record, encode)


def long_text(tokens: int) -> str:
    """Return a text with at least this number of tokens."""
    text = " ".join(PROBE_TEXTS)
    # Enough for tokens of eight characters on average.
    return " ".join([text] * (8 * tokens // len(text) + 1))
