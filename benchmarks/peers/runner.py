"""One contestant, run by benchmarks/encode.py in a separate process and environment.

    python runner.py NAME MODEL_FOLDER STORE

Reads one JSON object per line, {"texts": FILE, "out": FILE or null}, and answers with seconds and peak memory. Imports
isospace only if NAME is one of isospace's engines.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

STARTED = time.perf_counter()


def isospace_engine(backend: str, store: str, *, precision: str = "float32", flatten: bool = False) -> Callable:
    from isospace.encoding.engine import Engine
    from isospace.encoding.loading import open_encoder
    from isospace.storage.store import open_store

    # Open the stored encoder, as a query service or a worker does.
    encoder_id = Path(store, f"encoder-{precision}").read_text()
    encoder = open_encoder(open_store(store), encoder_id, Engine(backend=backend, flatten=flatten))
    return lambda texts: encoder.encode(texts, "document")


def sentence_transformers(backend: str, folder: str, batch_size: int = 32, precision: str = "") -> Callable:
    from sentence_transformers import SentenceTransformer

    options: dict = {} if backend == "torch" else {"model_kwargs": {"export": True}}
    if precision:
        options["model_kwargs"]["ov_config"] = {"INFERENCE_PRECISION_HINT": precision}
    model = SentenceTransformer(folder, device="cpu", backend=backend, **options)
    return lambda texts: model.encode(texts, batch_size=batch_size, show_progress_bar=False)


def pool_of_sentence_transformers(folder: str) -> Callable:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(folder, device="cpu")
    pool = model.start_multi_process_pool(["cpu"] * (os.cpu_count() or 1))
    return lambda texts: model.encode(texts, pool=pool, show_progress_bar=False)


def infinity(folder: str) -> Callable:
    import asyncio

    from infinity_emb import AsyncEmbeddingEngine, EngineArgs

    arguments = EngineArgs(
        model_name_or_path=folder, engine="torch", device="cpu", model_warmup=False, bettertransformer=False
    )
    engine = AsyncEmbeddingEngine.from_args(arguments)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(engine.astart())

    def encode(texts: list[str]) -> object:
        import numpy as np

        vectors, _ = loop.run_until_complete(engine.embed(sentences=texts))
        return np.array(vectors)

    return encode


def fastembed(folder: str, batch_size: int = 256) -> Callable:
    import numpy as np
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    TextEmbedding.add_custom_model(
        model="local/model",
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(hf="local/model"),
        dim=384,
        model_file="onnx/model.onnx",
    )
    model = TextEmbedding("local/model", specific_model_path=folder)
    return lambda texts: np.array(list(model.embed(texts, batch_size=batch_size)))


def load(name: str, folder: str, store: str) -> Callable:
    match name.split():
        case ["isospace", *what]:
            return load_isospace(what, store)
        case ["st", "pool"]:
            return pool_of_sentence_transformers(folder)
        case ["st", backend]:
            return sentence_transformers(backend, folder)
        case ["st", "openvino", "f32"]:
            return sentence_transformers("openvino", folder, precision="f32")
        case ["st", backend, size]:
            return sentence_transformers(backend, folder, int(size))
        case ["infinity"]:
            return infinity(folder)
        case ["fastembed"]:
            return fastembed(folder)
        case ["fastembed", size]:
            return fastembed(folder, int(size))
    raise SystemExit(f"unknown contestant {name}")


def load_isospace(what: list[str], store: str) -> Callable:
    match what:
        case [("int8" | "bfloat16") as precision]:
            return isospace_engine("openvino", store, precision=precision)
        case [backend, "flat"]:
            return isospace_engine(backend, store, flatten=True)
        case [backend]:
            return isospace_engine(backend, store)
    raise SystemExit(f"unknown engine {what}")


def peak_megabytes() -> int:
    # Not getrusage: its peak includes the memory of the process that this one was forked from.
    lines = Path("/proc/self/status").read_text().splitlines()
    own = int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    children = psutil.Process().children(recursive=True)
    return (own + sum(child.memory_info().rss // 1024 for child in children)) // 1024


def main() -> None:
    name, folder, store = sys.argv[1:]
    # Libraries print to stdout, so answers go to a separate descriptor.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    encode = load(name, folder, store)
    encode(["a first text"])
    print(json.dumps({"start": time.perf_counter() - STARTED, "memory": peak_megabytes()}), file=answers, flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        texts = json.loads(Path(order["texts"]).read_text())
        started = time.perf_counter()
        vectors = encode(texts)
        seconds = time.perf_counter() - started
        if order.get("out"):
            import numpy as np

            np.save(order["out"], np.asarray(vectors, np.float32))
        print(json.dumps({"seconds": seconds, "memory": peak_megabytes()}), file=answers, flush=True)
    # Process pools of libraries may never end by themselves, and would outlive this process.
    for child in psutil.Process().children(recursive=True):
        child.kill()
    os._exit(0)


if __name__ == "__main__":
    main()
