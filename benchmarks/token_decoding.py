"""RAG-Token's generate: ragweave against transformers, same weights and contexts, equal tokens, in one process.

python benchmarks/token_decoding.py [--questions 4] [--n-docs 5] [--tokens 20] [--rounds 3] [--threads 2]
"""

from __future__ import annotations

import argparse
import copy

import torch
from harness import compare, in_turn, machine, matmul_peak
from models import contexts, pair
from transformers.utils import logging


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--questions", type=int, default=4)
    parser.add_argument("--n-docs", type=int, default=5)
    parser.add_argument("--length", type=int, default=150, help="tokens of a context")
    parser.add_argument("--padded", type=int, default=300, help="length that the retriever pads to")
    parser.add_argument("--tokens", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--size", choices=("base", "tiny"), default="base")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    logging.set_verbosity_error()
    peer, ours = pair("token", size=args.size, n_docs=args.n_docs)
    half = copy.deepcopy(ours).to(torch.bfloat16)
    given = contexts(
        args.questions,
        args.n_docs,
        length=args.length,
        padded=args.padded,
        vocabulary=ours.config.generator.vocab_size,
    )
    print(machine())
    print(
        f"matrix multiplication: {matmul_peak(torch.float32):.0f} GFLOP/s in float32, "
        f"{matmul_peak(torch.bfloat16):.0f} in bfloat16"
    )
    for beams in (1, 4):
        options = {
            "num_beams": beams,
            "max_length": args.tokens + 1,
            "min_length": args.tokens + 1,
            "early_stopping": True,
        }
        same = torch.equal(peer.generate(**given, **options), ours.generate(**given, **options))
        print(f"R {beams}: tokens {'equal' if same else 'DIFFER'}")
        calls = {
            "transformers": lambda options=options: peer.generate(**given, **options),
            "ragweave": lambda options=options: ours.generate(**given, **options),
            "ragweave bfloat16": lambda options=options: half.generate(**given, **options),
        }
        compare(f"token decoding, R {beams}", in_turn(calls, args.rounds), "transformers")


if __name__ == "__main__":
    main()
