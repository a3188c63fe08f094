"""Open an encoder or its tokenizer from the store, and verify every file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isospace.encoding.registry.files import fetch_export, read_export
from isospace.encoding.registry.record import EncoderRecord, read_encoder_record
from isospace.errors import NotFoundError
from isospace.storage.store import Store

if TYPE_CHECKING:
    from isospace.encoding.encoder import LoadedEncoder, SentenceEncoder
    from isospace.encoding.engine import Engine
    from isospace.encoding.tokenizer import Tokenizer


def open_encoder(store: Store, encoder_id: str, engine: Engine | None = None) -> LoadedEncoder:
    """Load an encoder from the store and verify every file; of a served one, only its tokenizer is there.

    Without an engine, OpenVINO runs the encoder if the store has its graph: that does not need torch.
    """
    record = read_encoder_record(store, encoder_id)
    if record.served is not None:
        from isospace.encoding.served.opening import open_served

        return open_served(store, record, read_tokenizer(store, encoder_id), engine.endpoint if engine else None)
    return open_sentence_encoder(store, record, engine)


def open_sentence_encoder(store: Store, record: EncoderRecord, engine: Engine | None = None) -> SentenceEncoder:
    """Load an encoder whose model is in the store, and verify every file."""
    from isospace.encoding.encoder import SentenceEncoder
    from isospace.encoding.engine import Engine, engine_for, open_backend, resolve_engine

    exported = read_export(store, record.encoder_id, "openvino") is not None
    chosen = resolve_engine(engine_for(record, engine or Engine()), record.precision, exported=exported)
    return SentenceEncoder(
        record, read_tokenizer(store, record.encoder_id, record), open_backend(store, record, chosen)
    )


def read_tokenizer(store: Store, encoder_id: str, record: EncoderRecord | None = None) -> Tokenizer:
    """Load the tokenizer of an encoder from the store and verify it; the record is read if it is not given."""
    record = record or read_encoder_record(store, encoder_id)
    export = read_export(store, encoder_id, "tokenizer")
    if export is None:
        raise NotFoundError(
            f"encoder {encoder_id[:16]}…: the store has no tokenizer for it. Run `isospace run` once on a machine that "
            "has the model."
        )
    from isospace.encoding.tokenizer import Tokenizer

    data = (fetch_export(store, encoder_id, export) / "tokenizer.json").read_bytes()
    return Tokenizer(data, drops_unknown=record.library == "model2vec", is_never_empty=record.is_static)
