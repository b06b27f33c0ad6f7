"""Answering from cached passages: reading and whole questions, against reading every context whole, in one process.

    python benchmarks/passage_cache.py --kb KB --data QUESTIONS.jsonl [--limit 30] [--dtype float32] [--rounds 3]
    python benchmarks/passage_cache.py --check FILE --kb KB --data QUESTIONS.jsonl [--limit 200]
    python benchmarks/passage_cache.py --start-up --kb KB [--rounds 3]
    python benchmarks/passage_cache.py --replay

KB is a knowledge base for the embedded model, QUESTIONS has "question" in every line. The peer "one prompt" is
transformers' `generate` of the same generator with the K passages of a question in one prompt, what most people run.
It also says how far log p(y|x) and the answers are from those of whole contexts.

``--check`` compares answers: from whole contexts, from cached passages, and from passages that were rounded to
bfloat16, as ``ragweave warm --dtype bfloat16`` stores them. With "answers" in every line, it also counts exact
matches. FILE takes a line for each question, and another run goes on behind them.

``--start-up`` asks a question with and without the passages that ``ragweave warm KB`` has stored, each time in a new
process.

``--replay`` needs no model. It draws questions by Zipf's law and compares the share of passages that are found with
that of an LRU cache of the same size.
"""

from __future__ import annotations

import argparse
import json
import operator
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import OrderedDict
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from harness import compare, emit, in_turn, machine, say
from transformers.utils import logging

from ragweave import Answer, RagPipeline
from ragweave.encoders.linear import fast_linear
from ragweave.matching import exact_match
from ragweave.modeling.passage_cache import PassageCache, PassageReuse
from ragweave.outputs import RetrievedContexts


class RoundedCache(PassageCache):
    """Gives, where asked to, what a store in bfloat16 gives to a generator in float32."""

    rounds = False

    def get(self, key: bytes) -> torch.Tensor | None:
        """The keys and values of a passage."""
        states = super().get(key)
        return states.bfloat16().to(states.dtype) if self.rounds and states is not None else states


class LRUCache:
    """The peer: when it is full, the passage that was used longest ago goes."""

    def __init__(self, budget: int) -> None:
        self.budget, self.bytes, self.hits, self.misses = budget, 0, 0, 0
        self._sizes: OrderedDict[bytes, int] = OrderedDict()

    def get(self, key: bytes) -> int | None:
        """The size of a passage, if it is here."""
        if key not in self._sizes:
            self.misses += 1
            return None
        self.hits += 1
        self._sizes.move_to_end(key)
        return self._sizes[key]

    def put(self, key: bytes, states: torch.Tensor) -> None:
        """Keep a passage."""
        while self.bytes + len(states) > self.budget:
            self.bytes -= self._sizes.popitem(last=False)[1]
        self._sizes[key] = len(states)
        self.bytes += len(states)


def replay(seed: int, share: float, *, drifts: bool, questions: int = 200, draws: int = 4000) -> float:
    """The hit rate of the passage cache as a multiple of LRU's, in a service with 5 passages a question.

    Args:
        seed: Draws everything.
        share: The caches' size as a share of all passages that the questions retrieve.
        drifts: Whether other questions become popular every thousand draws.
        questions: How many different ones there are; the r-th is drawn with a probability of about 1/r.
        draws: How many are asked.
    """
    source = np.random.default_rng(seed)
    tokens = source.integers(60, 250, size=3 * questions)
    popularity = 1 / np.arange(1, len(tokens) + 1) ** 0.5  # questions share passages
    popularity /= popularity.sum()
    of_question = [source.choice(len(tokens), 5, replace=False, p=popularity) for _ in range(questions)]
    budget = int(share * tokens[np.unique(of_question)].sum())
    ranks = 1 / np.arange(1, questions + 1)
    drawn = source.choice(questions, draws, p=ranks / ranks.sum())
    order = np.arange(questions)
    caches = PassageCache(budget), LRUCache(budget)
    for number, rank in enumerate(drawn.tolist()):
        if drifts and number % 1000 == 0:
            order = source.permutation(questions)
        for passage in of_question[order[rank]].tolist():
            for cache in caches:
                if cache.get(b"%d" % passage) is None:
                    cache.put(b"%d" % passage, torch.empty(int(tokens[passage]), dtype=torch.uint8))
    return caches[0].hits / caches[1].hits  # of equally many


def print_replays() -> None:
    """Compare evictions for several sizes of the caches."""
    for drifts in (False, True):
        for share in (0.1, 1 / 3, 0.6):
            ratios = [replay(seed, share, drifts=drifts) for seed in range(5)]
            popular = "popularity drifts" if drifts else "popularity stays"
            row = {"benchmark": f"hits, {popular}", "what": f"cache of {share:.0%} of the passages"}
            middle = statistics.median(ratios)
            spread = {"ratio": middle, "lowest": min(ratios), "highest": max(ratios)}
            emit({**row, "median": middle, "unit": "x LRU's", **spread})


def ask(pipeline: RagPipeline, question: str, n_docs: int, kept: PassageCache | None) -> Answer:
    """Answer a question from cached passages, or without a cache from whole contexts."""
    pipeline.passage_cache = kept
    if kept is not None:
        return pipeline(question, n_docs=n_docs)
    # Contexts whose passages are unknown are read whole.
    with patch.object(pipeline.retriever, "passage_lengths", lambda ids, *_: [0] * len(ids)):
        return pipeline(question, n_docs=n_docs)


def check(pipeline: RagPipeline, records: list[dict[str, Any]], n_docs: int, file: Path) -> None:
    """Compare the answers to questions from whole contexts, cached passages and rounded ones."""
    rows = (
        [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []
    )
    ways = ("whole contexts", "cached passages", "passages in bfloat16")
    for record in records[len(rows) :]:
        row, kept = {}, RoundedCache(2**33)
        for way in ways:
            kept.rounds = way == ways[2]
            answer = ask(pipeline, record["question"], n_docs, None if way == ways[0] else kept)
            right = exact_match(answer.answer, record["answers"]) if "answers" in record else None
            row[way] = ([token.text for token in answer.tokens], answer.score, right)
        rows.append(json.loads(json.dumps(row)))
        with file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(row) + "\n")
    for way in ways:
        tokens, scores, right = zip(*(row[way] for row in rows), strict=True)
        whole_tokens, whole_scores, _ = zip(*(row[ways[0]] for row in rows), strict=True)
        equal = sum(map(operator.eq, tokens, whole_tokens))
        gaps = [
            abs(a - b)
            for a, b, c, d in zip(scores, whole_scores, tokens, whole_tokens, strict=True)
            if c == d
        ]
        figures = [(f"equal answers of {len(rows)}", equal), ("largest difference of log p(y|x)", max(gaps))]
        if None not in right:
            figures.append(("exact match", statistics.mean(right)))
        for what, value in figures:
            emit({"benchmark": f"check, {way}", "what": what, "median": value, "unit": ""})


def compare_start_ups(kb: Path, rounds: int) -> None:
    """Ask a question in a new process, with and without stored passages."""
    stored = sum(1 for _ in kb.glob("states/*/*.safetensors"))
    say(f"{machine()}; {stored} stored passages")
    with tempfile.TemporaryDirectory() as folder:
        bare = shutil.copytree(kb, Path(folder) / "kb", ignore=shutil.ignore_patterns("states"))
        command = [sys.executable, "-m", "ragweave", "ask", "What is the capital of Mongolia?", "--kb"]
        calls = {
            name: partial(subprocess.run, [*command, str(path)], check=True, capture_output=True)
            for name, path in {"no stored passages": bare, "stored passages": kb}.items()
        }
        compare("start-up and an answer", in_turn(calls, rounds), "no stored passages")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--replay", action="store_true", help="Compare evictions, without a model.")
    parser.add_argument("--check", type=Path, metavar="FILE", help="Compare answers; go on behind its lines.")
    parser.add_argument("--start-up", action="store_true", help="Compare start-ups.")
    parser.add_argument("--kb", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--limit", type=int, default=30)
    parser.add_argument("--n-docs", type=int, default=5)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    if args.replay:
        print_replays()
        return
    if args.kb is None or (args.data is None and not args.start_up):
        parser.error("give --kb and --data, --start-up and --kb, or --replay")
    if args.start_up:
        compare_start_ups(args.kb, args.rounds)
        return

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    lines = args.data.read_text(encoding="utf-8").splitlines()[: args.limit]
    records = [json.loads(line) for line in lines]
    questions = [record["question"] for record in records]
    pipeline = RagPipeline.from_pretrained(
        "embedded", knowledge_base=args.kb, dtype=args.dtype, min_confidence=0.0, passage_cache=0
    )
    cache = PassageCache(2**33)
    say(f"{machine()}; K {args.n_docs}; {args.dtype}; {len(questions)} questions")
    if args.check is not None:
        check(pipeline, records, args.n_docs, args.check)
        return
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
    compare(f"reading, {args.dtype}", in_turn(calls, args.rounds), "whole contexts")
    emit(
        {
            "benchmark": f"size of the cache, {args.dtype}",
            "what": f"{len(cache)} passages",
            "median": cache.bytes / 2**20,
            "unit": "MiB",
        }
    )

    def ask_all(kept: PassageCache | None) -> list[tuple[str, float]]:
        return [(a.answer, a.score) for a in (ask(pipeline, q, args.n_docs, kept) for q in questions)]

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

    without, with_cache = ask_all(None), ask_all(cache)
    calls = {
        "one prompt": one_prompt,
        "whole contexts": lambda: ask_all(None),
        "cached passages": lambda: ask_all(cache),
    }
    compare(f"questions, {args.dtype}", in_turn(calls, args.rounds), "whole contexts")
    same = sum(a == b for (a, _), (b, _) in zip(without, with_cache, strict=True))
    largest = max(abs(a - b) for (_, a), (_, b) in zip(without, with_cache, strict=True))
    say(f"answers equal: {same} of {len(questions)}; largest difference of log p(y|x): {largest:.1e}")


if __name__ == "__main__":
    main()
