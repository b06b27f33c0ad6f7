"""How the cost of RAG-Token's generate grows with K, R, B and the length of contexts, each from the same middle.

python benchmarks/growth.py [--rounds 2] [--tokens 20] [--size tiny]
"""

from __future__ import annotations

import argparse
import statistics

from harness import emit, machine, say, seconds
from models import contexts, pair
from transformers.utils import logging

MIDDLE = {"K": 5, "R": 4, "B": 2, "S": 150}
VALUES = {"K": (1, 2, 5, 10, 20), "R": (1, 2, 4, 8), "B": (1, 2, 4, 8), "S": (50, 150, 300, 600)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=20)
    parser.add_argument("--size", choices=("base", "tiny"), default="base")
    args = parser.parse_args()

    logging.set_verbosity_error()
    _, model = pair("token", size=args.size)
    say(machine())
    for axis, values in VALUES.items():
        for value in values:
            at = {**MIDDLE, axis: value}
            given = contexts(
                at["B"],
                at["K"],
                length=at["S"],
                padded=int(at["S"] * 1.2),
                vocabulary=model.config.generator.vocab_size,
            )
            options = {"num_beams": at["R"], "max_new_tokens": args.tokens, "min_new_tokens": args.tokens}
            model.generate(**given, **options)
            taken = [
                seconds(lambda given=given, options=options: model.generate(**given, **options))
                for _ in range(args.rounds)
            ]
            emit(
                {
                    "benchmark": f"growth with {axis}",
                    "what": f"{axis} {value}",
                    "median": statistics.median(taken),
                    "unit": "s",
                }
            )


if __name__ == "__main__":
    main()
