"""One training step of RAG-Token (forward, backward): ragweave against transformers, in one process.

python benchmarks/training_step.py [--questions 2] [--n-docs 5] [--rounds 3] [--threads 2]
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from harness import compare, in_turn, machine, say
from models import contexts, pair
from transformers.utils import logging


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--questions", type=int, default=2)
    parser.add_argument("--n-docs", type=int, default=5)
    parser.add_argument("--length", type=int, default=150, help="tokens of a context")
    parser.add_argument("--padded", type=int, default=300, help="length that the retriever pads to")
    parser.add_argument("--tokens", type=int, default=20, help="tokens of an answer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--size", choices=("base", "tiny"), default="base")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    logging.set_verbosity_error()
    peer, ours = pair("token", size=args.size, n_docs=args.n_docs)
    vocabulary = ours.config.generator.vocab_size
    given = contexts(
        args.questions, args.n_docs, length=args.length, padded=args.padded, vocabulary=vocabulary
    )
    labels = torch.randint(3, vocabulary, (args.questions, args.tokens))
    say(machine())

    def step(model: Any, *, half: bool = False) -> None:
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = model(**given, labels=labels, reduce_loss=True).loss
        loss.backward()

    calls = {
        "transformers": lambda: step(peer),
        "ragweave": lambda: step(ours),
        "ragweave bfloat16 autocast": lambda: step(ours, half=True),
    }
    compare("training step", in_turn(calls, args.rounds), "transformers")


if __name__ == "__main__":
    main()
