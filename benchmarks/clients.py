"""Clients of OpenAI's API, with their defaults, against the service.

    python -m benchmarks.clients STORE COLLECTION [--texts 5000] [--python PYTHON] [--node-modules FOLDER]
        [--token-ids tiktoken:cl100k_base] [--only CLIENT]

Each client embeds the same texts of the shipped corpus, in batches of the size that it chooses; OpenAI's own clients
get as many as the API accepts. The vectors are compared with those of the index, bit for bit. `--python` is the
interpreter that has the packages openai, langchain-openai, and llama-index-embeddings-openai, and `--node-modules` the
folder that has npm's package openai. Clients that are not there are skipped. With `--token-ids`, the service decodes
the token IDs that LangChain sends by default.
"""

from __future__ import annotations

import argparse
import array
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

KEY = "a-key-for-the-clients"
MOST = 2_048
SHOWN = 2_000
Vectors = list[list[float]]

JAVASCRIPT = """
import OpenAI from "openai";
import fs from "node:fs";
const [url, model, texts, output] = process.argv.slice(2);
const client = new OpenAI({baseURL: url + "/v1", apiKey: process.env.OPENAI_API_KEY});
const all = JSON.parse(fs.readFileSync(texts));
const vectors = [];
for (let first = 0; first < all.length; first += 2048) {
  const answer = await client.embeddings.create({model, input: all.slice(first, first + 2048)});
  vectors.push(...answer.data.map(one => one.embedding));
}
fs.writeFileSync(output, Buffer.from(Float32Array.from(vectors.flat()).buffer));
"""


def openai_python(url: str, model: str, texts: list[str]) -> Vectors:
    """OpenAI's Python client."""
    from openai import OpenAI

    client = OpenAI(base_url=f"{url}/v1", api_key=KEY)
    batches = [texts[first : first + MOST] for first in range(0, len(texts), MOST)]
    return [one.embedding for batch in batches for one in client.embeddings.create(model=model, input=batch).data]


def langchain(url: str, model: str, texts: list[str]) -> Vectors:
    """LangChain; without the option, it sends token IDs of OpenAI's tokenizer."""
    from langchain_openai import OpenAIEmbeddings

    options: dict[str, Any] = {"base_url": f"{url}/v1", "api_key": KEY, "check_embedding_ctx_length": False}
    return OpenAIEmbeddings(model=model, **options).embed_documents(texts)


def langchain_tokens(url: str, model: str, texts: list[str]) -> Vectors:
    """LangChain with its defaults: refused with a message that names the option, unless the service decodes IDs."""
    from langchain_openai import OpenAIEmbeddings

    options: dict[str, Any] = {"base_url": f"{url}/v1", "api_key": KEY}
    return OpenAIEmbeddings(model=model, **options).embed_documents(texts)


def llama_index(url: str, model: str, texts: list[str]) -> Vectors:
    """LlamaIndex."""
    from llama_index.embeddings.openai import OpenAIEmbedding

    return OpenAIEmbedding(model_name=model, api_base=f"{url}/v1", api_key=KEY).get_text_embedding_batch(texts)


CLIENTS: dict[str, Callable[[str, str, list[str]], Vectors]] = {
    "openai (Python)": openai_python,
    "langchain-openai": langchain,
    "langchain-openai, token IDs": langchain_tokens,
    "llama-index-embeddings-openai": llama_index,
}


def corpus_texts(count: int) -> list[str]:
    """Return different sentences of the shipped corpus; the longest ones may exceed the encoder's limit."""
    import pyarrow.parquet as pq

    documents = pq.read_table("configs/demo/corpus.parquet")["text"].to_pylist()
    sentences = [part.strip() for text in documents for part in re.split(r"(?<=[.!?])\s+", text)]
    found = list(dict.fromkeys(one for one in sentences if 40 < len(one) < 500))[:count]
    if len(found) < count:
        raise SystemExit(f"--texts {count}: the corpus has {len(found)} sentences; give at most that.")
    return found


def run_client(name: str, url: str, collection: str, texts: Path, output: Path, options: argparse.Namespace) -> str:
    """Run a client in its own process; return "" or why there are no vectors."""
    arguments = [url, collection, str(texts), str(output)]
    if name == "openai (JavaScript)":
        if options.node_modules is None:
            return "skipped: no --node-modules"
        script = options.node_modules / "isospace-client.mjs"
        script.write_text(JAVASCRIPT)
        command = ["node", str(script), *arguments]
    else:
        command = [options.python, __file__, "--client", name, *arguments]
    environment = {**os.environ, "OPENAI_API_KEY": KEY}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    return "" if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


def compare(url: str, options: argparse.Namespace, folder: Path) -> None:
    """Run all clients, and print what each of them got."""
    import numpy as np

    from isospace.search.open_index import open_index

    texts = corpus_texts(options.texts)
    with open_index(options.store, options.collection) as index:
        expected = index.space.embed(texts, "query")
    given = folder / "texts.json"
    given.write_text(json.dumps(texts))
    for number, name in enumerate(["openai (Python)", "openai (JavaScript)", *list(CLIENTS)[1:]]):
        if options.only not in (None, name):
            continue
        output, started = folder / f"{number}.f32", time.perf_counter()
        problem = run_client(name, url, options.collection, given, output, options)
        seconds = time.perf_counter() - started
        if problem:
            print(f"{name}: {problem[:SHOWN]}", flush=True)
            continue
        found = np.fromfile(output, "<f4").reshape(len(texts), -1)
        same = int((found == expected).all(axis=1).sum())
        print(f"{name}: {len(found):,} vectors in {seconds:.1f} s, {same:,} with the bits of the index", flush=True)


def main() -> None:
    """Start a service, and run the clients."""
    if sys.argv[1:2] == ["--client"]:
        name, url, model, texts, output = sys.argv[2:]
        vectors = CLIENTS[name](url, model, json.loads(Path(texts).read_text()))
        with Path(output).open("wb") as file:
            for vector in vectors:
                array.array("f", vector).tofile(file)
        return
    parser = argparse.ArgumentParser(description="Clients of OpenAI's API against the service.")
    parser.add_argument("store")
    parser.add_argument("collection")
    parser.add_argument("--texts", type=int, default=5_000)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--node-modules", type=Path)
    parser.add_argument("--token-ids")
    parser.add_argument("--only", metavar="CLIENT")
    options = parser.parse_args()
    command = [sys.executable, "-m", "isospace.cli", "serve", options.store, options.collection, "--port", "0"]
    command += ["--token-ids", options.token_ids] if options.token_ids else []
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "ISOSPACE_API_KEYS": KEY, "PYTHONUNBUFFERED": "1"}
        service = subprocess.Popen(
            [*command, "--access-log", f"{folder}/access.jsonl"], stdout=subprocess.PIPE, text=True, env=environment
        )
        try:
            assert service.stdout is not None
            url = [service.stdout.readline() for _ in range(2)][-1].split()[-1]
            compare(url, options, Path(folder))
        finally:
            service.terminate()
            service.wait(60)
        lines = [json.loads(line) for line in Path(folder, "access.jsonl").read_text().splitlines()]
    for status in sorted({line["status"] for line in lines}):
        of = [line for line in lines if line["status"] == status]
        most, longest = max(line.get("texts", 0) for line in of), max(line["milliseconds"] for line in of)
        print(f"status {status}: {len(of)} requests, with at most {most:,} texts, in at most {longest / 1000:.1f} s")


if __name__ == "__main__":
    main()
