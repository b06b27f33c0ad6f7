"""RAG-Sequence's generate: ragweave, thorough and fast, against transformers (thorough), in one process.

transformers drops the attention mask of the contexts, so both are given contexts without padding here.

    python benchmarks/sequence_decoding.py [--questions 4] [--n-docs 5] [--beams 4] [--tokens 20] [--rounds 3]
"""

from __future__ import annotations

import argparse

import torch
from harness import compare, in_turn, machine, say
from models import contexts, pair
from transformers.utils import logging


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--questions", type=int, default=4)
    parser.add_argument("--n-docs", type=int, default=5)
    parser.add_argument("--beams", type=int, default=4)
    parser.add_argument("--length", type=int, default=150, help="tokens of a context")
    parser.add_argument("--tokens", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--size", choices=("base", "tiny"), default="base")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    logging.set_verbosity_error()
    peer, ours = pair("sequence", size=args.size, n_docs=args.n_docs)
    given = contexts(
        args.questions,
        args.n_docs,
        length=args.length,
        padded=int(args.length * 0.8),
        vocabulary=ours.config.generator.vocab_size,
    )
    options = {
        "num_beams": args.beams,
        "max_length": args.tokens + 1,
        "min_length": args.tokens + 1,
        "early_stopping": True,
    }
    say(machine())
    same = torch.equal(peer.generate(**given, **options), ours.generate(**given, **options))
    say(f"R {args.beams}: tokens {'equal' if same else 'DIFFER'}")
    calls = {
        "transformers": lambda: peer.generate(**given, **options),
        "ragweave thorough": lambda: ours.generate(**given, **options),
        "ragweave fast": lambda: ours.generate(**given, **options, decoding="fast"),
    }
    compare(f"sequence decoding, R {args.beams}", in_turn(calls, args.rounds), "transformers")


if __name__ == "__main__":
    main()
