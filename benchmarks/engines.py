"""Decoding with a mixture over K contexts, against an inference engine that decodes each context by itself.

    pip install ctranslate2
    python benchmarks/engines.py [--questions 4] [--n-docs 5] [--tokens 20] [--beams 4] [--rounds 3]

The peer is CTranslate2 with the same weights: one beam search for each of the B x K contexts, in float32 and in int8.
It does less: its searches know nothing of each other, and nobody mixes their answers.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from pathlib import Path
from typing import Any

import ctranslate2
import torch
from ctranslate2.converters.converter import Converter
from ctranslate2.converters.transformers import BartLoader
from harness import compare, in_turn, machine, say
from models import contexts, pair
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

from ragweave.modeling.quantization import quantize_int8


class BartConverter(Converter):
    """Converts a BART in memory."""

    def __init__(self, generator: Any) -> None:
        self._generator = generator

    def _load(self) -> Any:
        config = self._generator.config
        config.normalize_before, config.normalize_embedding = False, True  # which the loader asks for
        words = {str(number): number for number in range(config.vocab_size)}
        special = {f"{name}_token": str(number) for number, name in enumerate(("bos", "pad", "eos", "unk"))}
        model = models.WordLevel(words, unk_token=special["unk_token"])
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model), **special)
        with torch.no_grad():
            return BartLoader()(self._generator, tokenizer)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--questions", type=int, default=4)
    parser.add_argument("--n-docs", type=int, default=5)
    parser.add_argument("--length", type=int, default=150, help="tokens of a context")
    parser.add_argument("--tokens", type=int, default=20)
    parser.add_argument("--beams", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", choices=("base", "tiny"), default="base")
    args = parser.parse_args()

    logging.set_verbosity_error()
    (_, token), (_, sequence) = (
        pair(name, size=args.size, n_docs=args.n_docs) for name in ("token", "sequence")
    )
    given = contexts(
        args.questions,
        args.n_docs,
        length=args.length,
        padded=2 * args.length,
        vocabulary=token.config.generator.vocab_size,
    )
    rows = zip(given["context_input_ids"].tolist(), given["context_attention_mask"].tolist(), strict=True)
    sources = [[str(i) for i, real in zip(*row, strict=True) if real] for row in rows]
    length = args.tokens + 1
    options = {"num_beams": args.beams, "max_length": length, "min_length": length, "early_stopping": True}
    fast = {**options, "decoding": "fast"}
    calls: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        BartConverter(token.generator).convert(str(Path(folder) / "model"))
        for kind in ("float32", "int8"):
            engine = ctranslate2.Translator(
                str(Path(folder) / "model"), compute_type=kind, intra_threads=torch.get_num_threads()
            )
            calls[f"CTranslate2 {kind}"] = lambda engine=engine: engine.translate_batch(
                sources,
                beam_size=args.beams,
                max_decoding_length=args.tokens,
                min_decoding_length=args.tokens,
                max_batch_size=0,
            )
    for kind in ("float32", "bfloat16", "int8"):
        for name, model, how in (("RAG-Token", token, options), ("RAG-Sequence fast", sequence, fast)):
            own = copy.deepcopy(model).to(torch.bfloat16 if kind == "bfloat16" else torch.float32)
            if kind == "int8":
                quantize_int8(own.generator)
            calls[f"{name} {kind}"] = lambda own=own, how=how: own.generate(**given, **how)
    say(f"{machine()}, CTranslate2 {ctranslate2.__version__}, {len(sources)} contexts")
    compare(f"engines, R {args.beams}", in_turn(calls, args.rounds), "CTranslate2 float32")


if __name__ == "__main__":
    main()
