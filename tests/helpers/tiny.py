"""A tiny random sentence-transformers model, built in code and saved to disk: real library, real files."""

from __future__ import annotations

import string
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

WORDS = [
    "the", "of", "and", "to", "in", "is", "for", "on", "that", "with", "as", "are", "this", "by", "from",
    "cell", "protein", "gene", "index", "search", "vector", "text",
]  # fmt: skip
LIMIT = 48


def build_tiny_model(
    folder: Path, *, seed: int = 0, dimension: int = 16, pooling: str = "mean", **kwargs: object
) -> Path:
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel

    fast = _tokenizer()
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(fast),
        hidden_size=dimension,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=2 * dimension,
        max_position_embeddings=LIMIT,
        initializer_range=0.5,
    )
    plain = folder.with_name(folder.name + "-plain")
    BertModel(config).save_pretrained(plain)
    fast.save_pretrained(plain)
    transformer = Transformer(str(plain), max_seq_length=LIMIT)
    modules = [transformer, Pooling(transformer.get_embedding_dimension(), pooling_mode=pooling, **kwargs), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(folder))
    return folder


def build_tiny_sparse(folder: Path, *, seed: int = 0, inference_free: bool = False) -> Path:
    """Save a SPLADE model of random weights; with `inference_free`, the weights of a query's tokens are looked up."""
    import torch
    from sentence_transformers import SparseEncoder
    from sentence_transformers.base.modules import Router
    from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding
    from transformers import BertConfig, BertForMaskedLM

    fast = _tokenizer()
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(fast),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=LIMIT,
        initializer_range=0.5,
    )
    network = BertForMaskedLM(config)
    # Few logits are positive, and those of a text's own tokens most often.
    torch.nn.init.constant_(network.cls.predictions.bias, -4.0)
    plain = folder.with_name(folder.name + "-plain")
    network.save_pretrained(plain)
    fast.save_pretrained(plain)
    model = SparseEncoder(str(plain), device="cpu")
    model.max_seq_length = LIMIT
    if inference_free:
        query = SparseStaticEmbedding(model.tokenizer, weight=torch.rand(len(fast)) + 0.5, frozen=True)
        router = Router.for_query_document(query_modules=[query], document_modules=list(model))
        model = SparseEncoder(modules=[router], device="cpu")
    model.save_pretrained(str(folder))
    return folder


def _tokenizer() -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = string.ascii_lowercase + string.digits + string.punctuation
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = [*special, *letters, *(f"##{c}" for c in letters), *WORDS]
    ids = {token: number for number, token in enumerate(dict.fromkeys(vocabulary))}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=200))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    names = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=LIMIT, **names)


def link_dense(model: Path, folder: Path, elsewhere: Path) -> tuple[Path, Path]:
    """Add a Dense module to a model, in a linked folder; return the model, and the module's weights behind the link."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense

    plain = SentenceTransformer(str(model), device="cpu")
    dimension = plain.get_embedding_dimension()
    *modules, normalize = plain
    SentenceTransformer(modules=[*modules, Dense(dimension, dimension), normalize], device="cpu").save_pretrained(
        str(folder)
    )
    (folder / "2_Dense").rename(elsewhere)
    (folder / "2_Dense").symlink_to(elsewhere, target_is_directory=True)
    return folder, elsewhere / "model.safetensors"
