"""Exact match, F1 and speed of the embedded model in each of its types, one question at a time.

    python benchmarks/precision.py --kb KB --data QUESTIONS.jsonl [--limit 40]

KB is a knowledge base of the passages that QUESTIONS ("question" and "answers" in every line) are about. The peer is
float32. Every passage is read anew: the passage cache is off.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from harness import emit, machine, say, seconds
from transformers.utils import logging

from ragweave import RagPipeline
from ragweave.matching import exact_match, f1


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kb", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=40)
    args = parser.parse_args()

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    records = [json.loads(line) for line in args.data.read_text(encoding="utf-8").splitlines()][: args.limit]
    say(f"{machine()}; {len(records)} questions, K 5")
    slowest = None
    for dtype in ("float32", "bfloat16", "int8"):
        pipeline = RagPipeline.from_pretrained(
            "embedded", knowledge_base=args.kb, dtype=dtype, min_confidence=0.0, passage_cache=0
        )
        pipeline(records[0]["question"])
        answers = []
        taken = seconds(lambda: answers.extend(pipeline(r["question"]) for r in records))  # noqa: B023
        slowest = slowest or taken
        golds = [record["answers"] for record in records]
        for what, score in (("exact match", exact_match), ("F1", f1)):
            mean = sum(map(score, [a.answer for a in answers], golds)) / len(records)
            emit({"benchmark": "precision", "what": f"{dtype}, {what}", "median": mean, "unit": ""})
        ratio = slowest / taken
        emit(
            {
                "benchmark": "precision",
                "what": f"{dtype}, a question",
                "median": taken / len(records),
                "unit": "s",
                "ratio": ratio,
                "lowest": ratio,
                "highest": ratio,
            }
        )


if __name__ == "__main__":
    main()
