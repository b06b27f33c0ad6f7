"""A vote: every passage answers by itself, and the answer with the largest sum of p(z|x) wins."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from experiments.results.configurations import Configuration

from ragweave import KnowledgeBase, RagPipeline
from ragweave.matching import normalize_answer
from ragweave.pipeline.rag_pipeline import Batch
from ragweave.provenance.answers import Answer, RetrievedPassage
from ragweave.retrieval.retriever import RetrievalResult
from ragweave.types import ScoredPassage


def load(configuration: Configuration, base: KnowledgeBase) -> RagPipeline:
    """The pipeline of a configuration."""
    model = configuration.model
    return (VotingPipeline if configuration.vote else RagPipeline).from_pretrained(
        model.model,
        knowledge_base=base,
        formulation=model.formulation,
        search=model.search,
        adapter=model.adapter,
        dtype=model.dtype,
    )


class _Votes(NamedTuple):
    retrieved: RetrievalResult  # of B questions, K passages each
    alone: Batch  # B*K questions, one passage each


class VotingPipeline(RagPipeline):
    """Decodes an answer from each passage, all in one batch, and lets the passages vote with p(z|x).

    RAG-Sequence's decodings are something else: they weigh an answer with p(y | x, z), too. What the winner's
    likelihood, null answer and posteriors are is theirs, with p(y | x, z) = 0 for passages that answered otherwise.
    """

    def _prepare(self, questions: list[str], retrieved: RetrievalResult, **options: Any) -> Any:
        k = retrieved.rows.shape[1]
        arrays = {name: getattr(retrieved, name) for name in ("rows", "scores", "weights", "offsets")}
        vectors = retrieved.passage_vectors
        alone = replace(
            retrieved,
            question_vectors=retrieved.question_vectors.repeat(k, 0),
            passage_vectors=vectors.reshape(-1, 1, vectors.shape[-1]),
            **{name: None if values is None else values.reshape(-1, 1) for name, values in arrays.items()},
        )
        return _Votes(retrieved, super()._prepare([*np.repeat(questions, k)], alone, **options))

    def _answer(self, batch: Any, callback: Any, **options: Any) -> list[Answer]:
        answers = super()._answer(batch.alone, callback, **options)
        k = batch.retrieved.rows.shape[1]
        return [
            vote(answers[b * k : (b + 1) * k], passages)
            for b, passages in enumerate(batch.retrieved.passages)
        ]


def vote(answers: Sequence[Answer], passages: Sequence[ScoredPassage | None]) -> Answer:
    """The answer of one question, whose K passages gave these answers."""
    votes = [(one, passage) for one, passage in zip(answers, passages, strict=True) if passage is not None]
    if not votes:
        return answers[0]
    texts = [normalize_answer(one.answer) for one, _ in votes]
    sums = dict.fromkeys(texts, 0.0)
    for text, (_, passage) in zip(texts, votes, strict=True):
        sums[text] += passage.prior
    winner = max(sums, key=sums.__getitem__)
    joint = [
        passage.prior * math.exp(one.score) * (text == winner)
        for text, (one, passage) in zip(texts, votes, strict=True)
    ]
    likelihood = math.fsum(joint)
    null = [passage.prior * math.exp(one.null_score) for one, passage in votes if one.null_score is not None]
    read = [
        RetrievedPassage.of(passage, value / likelihood, answer.passages[0].null)
        for (answer, passage), value in zip(votes, joint, strict=True)
    ]
    return replace(
        votes[int(np.argmax(joint))][0],
        score=math.log(likelihood),
        passages=tuple(sorted(read, key=lambda passage: -passage.posterior)),
        tokens=(),
        null_score=math.log(max(math.fsum(null), sys.float_info.min)) if null else None,
    )
