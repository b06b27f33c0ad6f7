"""RAG-Token's generate: ragweave against transformers, same weights and contexts, equal tokens, in one process.

With the share of the machine's matrix-multiplication peak that reading the contexts reaches, and the share of the
linear layers in a step of decoding.

    python benchmarks/token_decoding.py [--questions 4] [--n-docs 5] [--tokens 20] [--rounds 3] [--threads 2]
"""

from __future__ import annotations

import argparse
import copy
from typing import Any

import torch
from harness import compare, emit, in_turn, machine, matmul_peak, say, seconds
from models import contexts, pair
from transformers.utils import logging

from ragweave.encoders.linear import fast_linear


def reading_share(model: Any, given: dict[str, torch.Tensor], dtype: torch.dtype) -> None:
    """How much of the machine's peak the encoder reaches; work is counted for real tokens alone."""
    peak = matmul_peak(dtype)
    encoder = model.generator.get_encoder()
    weights = sum(layer.weight.numel() for layer in encoder.modules() if isinstance(layer, torch.nn.Linear))
    work = 2 * weights * int(given["context_attention_mask"].sum()) / 1e9
    contexts = model.rag.prepare_contexts(**given)
    with torch.inference_mode():
        best = min(seconds(lambda: model.rag.encode_contexts(contexts)) for _ in range(4))
    name = str(dtype).removeprefix("torch.")
    for what, value, unit in (
        (f"matrix multiplication, {name}", peak, "GFLOP/s"),
        (f"encoding contexts, {name}", work / best, "GFLOP/s"),
        (f"encoding contexts, {name}, share", 100 * work / best / peak, "% of peak"),
    ):
        emit({"benchmark": "token decoding, limit", "what": what, "median": value, "unit": unit})


def step_share(model: Any, given: dict[str, torch.Tensor], dtype: torch.dtype, *, beams: int = 4) -> None:
    """How much of a step of decoding is the matrix multiplications that it cannot do without.

    The limit is the decoder's linear layers and the head by themselves, over the rows of a step; those that read
    the context have done so before. Of a step, everything counts: attention, mixture, beams and bookkeeping.
    """
    rows = len(given["context_input_ids"]) * beams
    decoder = model.generator.get_decoder()
    layers = [
        layer
        for name, layer in decoder.named_modules()
        if isinstance(layer, torch.nn.Linear)
        and not name.endswith(("encoder_attn.k_proj", "encoder_attn.v_proj"))
    ]
    layers.append(model.generator.get_output_embeddings())
    inputs = [torch.randn(rows, layer.in_features).to(dtype) for layer in layers]

    def alone() -> None:
        with fast_linear(model.generator):
            for layer, x in zip(layers, inputs, strict=True):
                layer(x)

    def generate(tokens: int) -> None:
        model.generate(**given, num_beams=beams, min_length=tokens + 1, max_length=tokens + 1)

    short, long = 5, 25
    with torch.inference_mode():
        limit = min(seconds(alone) for _ in range(10))
        step = min(seconds(lambda: generate(long)) for _ in range(3))
        step = (step - min(seconds(lambda: generate(short)) for _ in range(3))) / (long - short)
    name = str(dtype).removeprefix("torch.")
    for what, value, unit in (
        (f"linear layers of a step, R {beams}, {name}", 1000 * limit, "ms"),
        (f"step, R {beams}, {name}", 1000 * step, "ms"),
        (f"linear layers' share of a step, R {beams}, {name}", 100 * limit / step, "%"),
    ):
        emit({"benchmark": "token decoding, limit", "what": what, "median": value, "unit": unit})


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
    say(machine())
    for model, dtype in ((ours, torch.float32), (half, torch.bfloat16)):
        reading_share(model, given, dtype)
        step_share(model, given, dtype)
    for beams in (1, 4):
        options = {
            "num_beams": beams,
            "max_length": args.tokens + 1,
            "min_length": args.tokens + 1,
            "early_stopping": True,
        }
        same = torch.equal(peer.generate(**given, **options), ours.generate(**given, **options))
        say(f"R {beams}: tokens {'equal' if same else 'DIFFER'}")
        calls = {
            "transformers": lambda options=options: peer.generate(**given, **options),
            "ragweave": lambda options=options: ours.generate(**given, **options),
            "ragweave bfloat16": lambda options=options: half.generate(**given, **options),
        }
        compare(f"token decoding, R {beams}", in_turn(calls, args.rounds), "transformers")


if __name__ == "__main__":
    main()
