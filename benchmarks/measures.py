"""Metrics of MiniLM on judged collections, compared with pytrec_eval and with published figures.

    python -m benchmarks.measures FOLDER_WITH_COLLECTIONS [--work FOLDER]

Published for all-MiniLM-L6-v2 on SciFact: nDCG@10 .64508, recall@10 .78333, recall@100 .925, MAP .60343.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import pytrec_eval

from benchmarks.modes import embed
from isospace.evaluation.metrics import per_query
from isospace.evaluation.query_set_files import load_set
from isospace.evaluation.runs import answer_set
from isospace.search.open_index import open_index
from isospace.search.options import SearchOptions

TREC = {"nDCG@10": "ndcg_cut_10", "R@10": "recall_10", "R@100": "recall_100", "AP": "map", "P@5": "P_5"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--work", type=Path, default=None)
    arguments = parser.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="isospace-measures-"))
    for qrels in sorted(arguments.folder.glob("*/qrels.parquet")):
        folder = qrels.parent
        embed(folder, work, "english")
        asked = load_set(folder.name, folder / "queries.parquet", qrels)
        with open_index(str(work), folder.name) as index:
            run = answer_set(index.view, asked, SearchOptions())
        found = per_query(run.documents, asked.judged, list(TREC))
        theirs = pytrec_eval.RelevanceEvaluator(asked.judged, set(TREC.values())).evaluate(run.documents)
        worst = max(
            abs(found[name][query] - theirs[query][trec]) for name, trec in TREC.items() for query in asked.judged
        )
        means = {name: round(sum(values.values()) / len(values), 5) for name, values in found.items()}
        print(f"{folder.name}: {len(asked.judged)} queries, {means}; largest difference from pytrec_eval {worst:.1e}")


if __name__ == "__main__":
    main()
