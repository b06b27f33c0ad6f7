"""How long `ragweave ask` takes, and how much memory: first answer and later ones, from a cold process.

    python benchmarks/ask.py [KB] [--n-docs 5] [--dtype auto]

KB is a knowledge base; the one of the World Factbook that `make demo` leaves, where left out. There is no peer
here: this is what a user waits for.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time

QUESTIONS = (
    "What is the capital of Mongolia?",
    "What is the currency of Japan?",
    "Who is the head of government of Iceland?",
    "What is the highest point in Peru?",
    "When did Kenya become independent?",
    "How long is the coastline of New Zealand?",
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kb", nargs="?", default=".cache/world-factbook/kb")
    parser.add_argument("--n-docs", type=int, default=5)
    parser.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16"))
    args = parser.parse_args()

    start = time.perf_counter()
    from transformers.utils import logging

    from ragweave import RagPipeline

    logging.disable_progress_bar()
    pipeline = RagPipeline.from_pretrained("embedded", knowledge_base=args.kb, dtype=args.dtype)
    loaded = time.perf_counter() - start
    seconds = []
    for question in QUESTIONS:
        begun = time.perf_counter()
        pipeline(question, n_docs=args.n_docs)
        seconds.append(time.perf_counter() - begun)
    begun = time.perf_counter()
    pipeline(list(QUESTIONS), n_docs=args.n_docs)
    together = time.perf_counter() - begun
    from harness import emit, machine, say  # not before: it imports torch, and that is waited for too

    say(f"{machine()}; K {args.n_docs}; {args.dtype}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    for what, value, unit in (
        ("loading", loaded, "s"),
        ("first answer after loading", seconds[0], "s"),
        ("each later answer", statistics.median(seconds[1:]), "s"),
        (f"{len(QUESTIONS)} questions together", together, "s"),
        ("peak resident memory", peak, "MiB"),
    ):
        emit({"benchmark": "ask", "what": what, "median": value, "unit": unit})


if __name__ == "__main__":
    main()
