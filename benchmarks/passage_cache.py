"""Answering from cached passages: reading and whole questions, against reading every context whole, in one process.

    python benchmarks/passage_cache.py --kb KB --data QUESTIONS.jsonl [--limit 30] [--dtype float32] [--rounds 3]

KB is a knowledge base for the embedded model, QUESTIONS has "question" in every line. The peer "one prompt" is
transformers' `generate` of the same generator with the K passages of a question in one prompt, what most people run.
It also says how far log p(y|x) and the answers are from those of whole contexts.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from harness import compare, emit, in_turn, machine, say
from transformers.utils import logging

from ragweave import RagPipeline
from ragweave.encoders.linear import fast_linear
from ragweave.modeling.passage_cache import PassageCache, PassageReuse
from ragweave.outputs import RetrievedContexts


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kb", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=30)
    parser.add_argument("--n-docs", type=int, default=5)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    lines = args.data.read_text(encoding="utf-8").splitlines()[: args.limit]
    questions = [json.loads(line)["question"] for line in lines]
    pipeline = RagPipeline.from_pretrained(
        "embedded", knowledge_base=args.kb, dtype=args.dtype, min_confidence=0.0, passage_cache=0
    )
    cache = PassageCache(2**33)
    say(f"{machine()}; K {args.n_docs}; {args.dtype}; {len(questions)} questions")
    found = pipeline.retrieve(questions, n_docs=args.n_docs)
    contexts = []
    for number, question in enumerate(questions):
        docs = [found.docs[number]]
        ids, mask = pipeline.retriever.postprocess_docs(
            docs, [question], None, args.n_docs, return_tensors="pt", padding="longest"
        )
        scores = torch.from_numpy(found.scores[number : number + 1])
        lengths = pipeline.retriever.passage_lengths(ids, mask, [question])
        contexts.append((RetrievedContexts(ids, mask, scores), lengths))

    def read(kept: PassageCache | None, *, whole: bool = False) -> None:
        with torch.inference_mode():
            for own, lengths in contexts:
                passages = None if whole else PassageReuse(lengths, kept)
                pipeline.model.rag.encode_contexts(own, reuse=True, passages=passages)

    calls = {"whole contexts": lambda: read(None, whole=True), "cached passages": lambda: read(cache)}
    compare("reading", in_turn(calls, args.rounds), "whole contexts")
    emit(
        {
            "benchmark": "size of the cache",
            "what": f"{len(cache)} passages",
            "median": cache.bytes / 2**20,
            "unit": "MiB",
        }
    )

    find_passages = pipeline.retriever.passage_lengths

    def ask(kept: PassageCache | None) -> list[tuple[str, float]]:
        pipeline.passage_cache = kept
        whole = kept is None  # contexts whose passages are unknown are read whole
        pipeline.retriever.passage_lengths = (lambda ids, *_: [0] * len(ids)) if whole else find_passages
        return [(a.answer, a.score) for a in (pipeline(q, n_docs=args.n_docs) for q in questions)]

    def one_prompt() -> None:
        """The K passages in one prompt, as the generator reads one passage."""
        tokenizer, config = pipeline.retriever.generator_tokenizer, pipeline.model.config
        for question in questions:
            doc = pipeline.retrieve([question], n_docs=args.n_docs).docs[0]
            titled = zip(doc["title"], doc["text"], strict=True)
            text = "\n\n".join(f"{title}{config.title_sep}{body}" for title, body in titled)
            prompt = f"{config.prefix}{text}{config.doc_sep}{question}{config.answer_sep}"
            encoded = tokenizer(prompt, return_tensors="pt")
            with torch.inference_mode(), fast_linear(pipeline.model.generator):
                pipeline.model.generator.generate(**encoded, max_new_tokens=32, do_sample=False)

    without, with_cache = ask(None), ask(cache)
    calls = {
        "one prompt": one_prompt,
        "whole contexts": lambda: ask(None),
        "cached passages": lambda: ask(cache),
    }
    compare("questions", in_turn(calls, args.rounds), "whole contexts")
    same = sum(a == b for (a, _), (b, _) in zip(without, with_cache, strict=True))
    largest = max(abs(a - b) for (_, a), (_, b) in zip(without, with_cache, strict=True))
    say(f"answers equal: {same} of {len(questions)}; largest difference of log p(y|x): {largest:.1e}")


if __name__ == "__main__":
    main()
