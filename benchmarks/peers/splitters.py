"""Cut documents into chunks of so many tokens with other libraries; run by the interpreter that has them.

    PYTHON benchmarks/peers/splitters.py NAME DOCUMENTS TOKENIZER TOKENS OVERLAP

DOCUMENTS is a file of JSON lines with a `text` each, TOKENIZER a `tokenizer.json`. Prints the processor seconds of one
pass, after one over the first tenth, and the number of chunks, as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Split = Callable[[str], Sequence[Any]]


def langchain(tokenizer: Any, tokens: int, overlap: int) -> Split:
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False).ids)

    return RecursiveCharacterTextSplitter(chunk_size=tokens, chunk_overlap=overlap, length_function=count).split_text


def llamaindex(tokenizer: Any, tokens: int, overlap: int) -> Split:
    from llama_index.core.node_parser import SentenceSplitter

    def ids(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False).ids)

    return SentenceSplitter(chunk_size=tokens, chunk_overlap=overlap, tokenizer=ids).split_text


def chonkie_tokens(tokenizer: Any, tokens: int, overlap: int) -> Split:
    from chonkie import TokenChunker

    return TokenChunker(tokenizer, chunk_size=tokens, chunk_overlap=overlap)


def chonkie_sentences(tokenizer: Any, tokens: int, overlap: int) -> Split:
    from chonkie import SentenceChunker

    return SentenceChunker(tokenizer, chunk_size=tokens, chunk_overlap=overlap)


def chonkie_recursive(tokenizer: Any, tokens: int, overlap: int) -> Split:
    from chonkie import RecursiveChunker

    return RecursiveChunker(tokenizer, chunk_size=tokens)


SPLITTERS = {
    "LangChain recursive": langchain,
    "LlamaIndex sentences": llamaindex,
    "chonkie tokens": chonkie_tokens,
    "chonkie sentences": chonkie_sentences,
    "chonkie recursive": chonkie_recursive,
}


def main() -> None:
    name, documents, path, tokens, overlap = sys.argv[1:]
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(path)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    split = SPLITTERS[name](tokenizer, int(tokens), int(overlap))
    texts = [json.loads(line)["text"] for line in Path(documents).read_text().splitlines()]
    for text in texts[: len(texts) // 10 + 1]:
        split(text)
    before, chunks = time.process_time(), 0
    for text in texts:
        chunks += len(split(text))
    print(json.dumps({"seconds": time.process_time() - before, "chunks": chunks}))


if __name__ == "__main__":
    main()
