"""The TensorFlow classes against the torch ones: same weights and contexts, in one process.

A forward pass with loss, a training step (loss, gradients and SGD), and 20 tokens by RAG-Token, each as a user gets
it: torch as it is, TensorFlow in graphs (``tf.function``; generate makes its own).

    python benchmarks/tensorflow_classes.py [--questions 2] [--n-docs 5] [--tokens 20] [--rounds 5] [--threads 2]

It needs the extra ``tf``, beside torch.
"""

from __future__ import annotations

import argparse
import tempfile
from typing import Any

import numpy as np
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
    parser.add_argument("--tokens", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--size", choices=("base", "tiny"), default="base")
    args = parser.parse_args()

    import tensorflow

    from ragweave.tf import TFRagTokenForGeneration

    torch.set_num_threads(args.threads)
    tensorflow.config.threading.set_intra_op_parallelism_threads(args.threads)
    tensorflow.config.threading.set_inter_op_parallelism_threads(1)
    logging.set_verbosity_error()
    _, theirs = pair("token", size=args.size, n_docs=args.n_docs)
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        ours = TFRagTokenForGeneration.from_pretrained(folder)
    given = contexts(
        args.questions,
        args.n_docs,
        length=args.length,
        padded=int(args.length * 1.2),
        vocabulary=theirs.config.generator.vocab_size,
    )
    labels = torch.randint(3, 400, (args.questions, args.tokens))
    arrays = {name: value.numpy() for name, value in given.items()}
    tensors = {name: tensorflow.constant(value) for name, value in arrays.items()}
    expected = tensorflow.constant(labels.numpy())

    def loss_of() -> Any:
        return tensorflow.reduce_mean(ours(**tensors, labels=expected).loss)

    forward = tensorflow.function(loss_of)

    @tensorflow.function
    def step() -> Any:
        with tensorflow.GradientTape() as tape:
            loss = loss_of()
        weights = [own.value for own in ours.generator.trainable_variables]
        for weight, gradient in zip(weights, tape.gradient(loss, weights), strict=True):
            if gradient is not None:
                weight.assign_sub(1e-6 * tensorflow.convert_to_tensor(gradient))
        return loss

    optimizer = torch.optim.SGD(theirs.generator.parameters(), lr=1e-6)

    def torch_step() -> None:
        optimizer.zero_grad()
        theirs(**given, labels=labels).loss.mean().backward()
        optimizer.step()

    def torch_forward() -> Any:
        with torch.no_grad():
            return theirs(**given, labels=labels).loss.mean()

    say(f"{machine()}, tensorflow {tensorflow.__version__}")
    apart = abs(float(torch_forward()) - float(forward()))
    say(f"losses differ by {apart:.1e}")
    options = {"max_new_tokens": args.tokens, "min_new_tokens": args.tokens}
    same = np.array_equal(
        theirs.generate(**given, **options).numpy(), np.asarray(ours.generate(**arrays, **options))
    )
    say(f"tokens {'equal' if same else 'DIFFER'}")
    works = {
        "forward": {"torch": torch_forward, "tensorflow": forward},
        "training step": {"torch": torch_step, "tensorflow": step},
        f"{args.tokens} tokens": {
            "torch": lambda: theirs.generate(**given, **options),
            "tensorflow": lambda: ours.generate(**arrays, **options),
        },
        f"{args.tokens} tokens, 4 beams": {
            "torch": lambda: theirs.generate(**given, **options, num_beams=4),
            "tensorflow": lambda: ours.generate(**arrays, **options, num_beams=4),
        },
    }
    for name, calls in works.items():
        compare(f"tensorflow classes, {name}", in_turn(calls, args.rounds), "torch")


if __name__ == "__main__":
    main()
