"""Questions a second from question to answer, 1, 8 and 32 at a time, with the embedded model.

The peer is one question at a time.

    python benchmarks/pipeline_throughput.py [KB] [--questions 32] [--rounds 1] [--dtype auto]

KB is a knowledge base; the one of the World Factbook that `make demo` leaves, where left out.
"""

from __future__ import annotations

import argparse
from functools import partial

from harness import compare, emit, in_turn, machine, say

TEMPLATES = (
    "What is the capital of {}?",
    "What is the currency of {}?",
    "What is the highest point in {}?",
    "Which religions are practised in {}?",
)
COUNTRIES = ("Mongolia", "Japan", "Peru", "Kenya", "Iceland", "Norway", "Chile", "Ghana")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kb", nargs="?", default=".cache/world-factbook/kb")
    parser.add_argument("--questions", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16", "int8"))
    args = parser.parse_args()

    from transformers.utils import logging

    from ragweave import RagPipeline

    logging.disable_progress_bar()
    pipeline = RagPipeline.from_pretrained("embedded", knowledge_base=args.kb, dtype=args.dtype)
    questions = [template.format(country) for country in COUNTRIES for template in TEMPLATES]
    questions = questions[: args.questions]
    say(f"{machine()}; {args.dtype}")
    calls = {f"B {size}": partial(pipeline, questions, batch_size=size) for size in (1, 8, 32)}
    taken = in_turn(calls, args.rounds)
    compare("pipeline throughput", taken, "B 1")
    for name, own in taken.items():
        rate = len(questions) / min(own)
        emit({"benchmark": "pipeline throughput", "what": name, "median": rate, "unit": "questions/s"})


if __name__ == "__main__":
    main()
