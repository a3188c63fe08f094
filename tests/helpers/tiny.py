"""A tiny random sentence-transformers model, built in code and saved to disk: real library, real files."""

from __future__ import annotations

import string
from pathlib import Path

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
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

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
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=LIMIT, **names)

    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(ids),
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
