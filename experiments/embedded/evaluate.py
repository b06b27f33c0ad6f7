"""Compute exact match, F1 and recall of the embedded model on a file of questions.

    python -m experiments.embedded.evaluate --kb KB --data dev.jsonl [--n-docs 5] [--free] ...

KB is a knowledge base, built by `ragweave index`, of the passages that the questions are about.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from transformers.utils import logging

from ragweave import RagPipeline, SearchSettings
from ragweave.matching import exact_match, f1
from ragweave.pipeline import embedded


def main() -> None:
    """Evaluate and print one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kb", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--adapter", type=Path, default=embedded.ADAPTER)
    parser.add_argument("--n-docs", type=int, default=5)
    parser.add_argument("--beams", type=int, default=1)
    parser.add_argument("--formulation", choices=("token", "sequence"), default="token")
    parser.add_argument("--retrieval", choices=("dense", "bm25", "hybrid"))
    parser.add_argument("--free", action="store_true", help="allow any words in answers")
    parser.add_argument("--scale", type=float, default=embedded.CONTEXT_FIELDS["doc_score_scale"])
    parser.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16", "int8"))
    parser.add_argument("--limit", type=int)
    parser.add_argument("--predictions", type=Path, help="file for the answers, JSON lines")
    args = parser.parse_args()

    logging.disable_progress_bar()
    embedded.ADAPTER = args.adapter
    embedded.CONTEXT_FIELDS["doc_score_scale"] = args.scale
    records = [json.loads(line) for line in args.data.read_text(encoding="utf-8").splitlines()][: args.limit]
    pipeline = RagPipeline.from_pretrained(
        "embedded",
        knowledge_base=args.kb,
        formulation=args.formulation,
        search=SearchSettings(args.retrieval),
        dtype=args.dtype,
    )
    start = time.perf_counter()
    answers = pipeline(
        [record["question"] for record in records],
        n_docs=args.n_docs,
        num_beams=args.beams,
        extractive=not args.free,
    )
    seconds = time.perf_counter() - start
    rows = pipeline.retrieve([record["question"] for record in records], n_docs=5).rows
    base = pipeline.knowledge_base
    found = [
        {name for passage in base.passages(own) for name in (passage.id, passage.document_id)} for own in rows
    ]
    n = len(records)
    print(
        json.dumps(
            {
                "exact_match": sum(
                    exact_match(a.answer, r["answers"]) for a, r in zip(answers, records, strict=True)
                )
                / n,
                "f1": sum(f1(a.answer, r["answers"]) for a, r in zip(answers, records, strict=True)) / n,
                "recall@5": sum(r["passage"] in own for r, own in zip(records, found, strict=True)) / n,
                "questions": n,
                "seconds": round(seconds, 1),
                "options": {k: str(v) for k, v in vars(args).items() if v is not None},
            }
        )
    )
    if args.predictions:
        lines = [
            json.dumps({"answer": a.answer, "golds": r["answers"], "question": a.question, "score": a.score})
            for a, r in zip(answers, records, strict=True)
        ]
        args.predictions.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
