"""RAG-Sequence with a generator behind an OpenAI-compatible server.

One request for each passage gives a hypothesis y with p(y | x, z). Equal hypotheses are merged, and p(y|x) is the sum
of p(z|x) p(y | x, z) over the passages that gave y, or, where the server scores texts, over all passages: "fast" and
"thorough decoding" of Lewis et al. 2020, section 2.5.

Notation used for tensor shapes: K passages per question, T answer tokens.
"""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from ragweave.configuration import RagConfig
from ragweave.encoders.text_encoder import TextEncoder
from ragweave.errors import ConfigurationError, GeneratorError
from ragweave.knowledge.base import KnowledgeBase
from ragweave.marginalization import prefix_posteriors, sequence_log_likelihood, sequence_posterior
from ragweave.pipeline.answer_pipeline import AnswerPipeline, concatenated
from ragweave.pipeline.chat_client import ChatClient, Completion
from ragweave.pipeline.conversation import MOST_TOKENS, REWRITE, history_text
from ragweave.pipeline.instruct import instruction
from ragweave.pipeline.rag_pipeline import RagPipeline
from ragweave.provenance.answers import Answer, AnswerToken, RetrievedPassage
from ragweave.provenance.confidence import UNCALIBRATED, CalibratedConfidence
from ragweave.provenance.posteriors import answer_tokens
from ragweave.retrieval.index_protocol import PassageScorer
from ragweave.retrieval.rag_retriever import RagRetriever
from ragweave.retrieval.retriever import RetrievalResult
from ragweave.types import AnswerFormulation, AnswerStyle, ScoredPassage, SearchSettings

if TYPE_CHECKING:
    from ragweave.pipeline.streaming import BatchCallback

# Log p(y|x) of an answer that no passage gave: p is nearly 0, and the number is valid JSON.
_NO_PASSAGE = math.log(sys.float_info.min)


@dataclass(frozen=True, slots=True)
class EndpointAnswer(Answer):
    """An answer from a server.

    Attributes:
        failed: The reasons why requests failed, by passage id; these passages do not count.
    """

    failed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Batch:
    """B questions, their retrieved passages, and the passages of each question that need a request."""

    questions: list[str]
    retrieved: RetrievalResult
    passages: list[tuple[ScoredPassage, ...]]


class EndpointPipeline(AnswerPipeline):
    """Answers questions from a knowledge base with a generator on a server.

    A call sends one request for each of the K passages of a question. It raises `GeneratorError` if all requests
    of a question fail.

    Args:
        client: The server.
        knowledge_base: The knowledge base; its encoder encodes the questions.
        search: How to search it.
        encoder: The encoder, if it is already loaded.
        reranker: A cross-encoder that chooses and scores passages among the candidates of the search.
        answer_style: How the generator is told to answer: "short" (the default), "sentence" or "long".
        confidence: Estimates how likely an answer is to be right; p(y|x) by default.
        min_confidence: The lowest confidence at which to give an answer; by default the threshold of ``confidence``.

    Example:
        ```python
        client = ChatClient("http://127.0.0.1:8080/v1", "qwen3-4b")
        pipeline = EndpointPipeline(client, KnowledgeBase.open("kb"))
        print(pipeline("What is the capital of Mongolia?").answer)
        ```
    """

    formulations = ("sequence", "concat")

    def __init__(
        self,
        client: ChatClient,
        knowledge_base: KnowledgeBase,
        *,
        search: SearchSettings | None = None,
        encoder: TextEncoder | None = None,
        reranker: PassageScorer | None = None,
        answer_style: AnswerStyle | None = None,
        confidence: CalibratedConfidence = UNCALIBRATED,
        min_confidence: float | None = None,
    ) -> None:
        self.client = client
        self._formulation: AnswerFormulation = "sequence"
        self.encoder = knowledge_base.encoder if encoder is None else encoder
        retriever = knowledge_base.retriever(search, encoder=self.encoder, reranker=reranker)
        self.config = RagConfig(doc_score_scale=retriever.doc_score_scale)
        tokenizer = self.encoder.tokenizer
        self.retriever = RagRetriever(self.config, tokenizer, tokenizer, index=retriever.index)
        self.confidence = confidence
        self.min_confidence = confidence.threshold if min_confidence is None else min_confidence
        self._instruction = instruction(answer_style)

    @classmethod
    def from_pretrained(
        cls,
        client: ChatClient,
        *,
        knowledge_base: str | Path | KnowledgeBase | None,
        reranker: str | Path | PassageScorer | None = None,
        device: str | None = None,
        calibration: str | Path | None = None,
        **options: Any,
    ) -> EndpointPipeline:
        """Load everything that a pipeline needs besides the server.

        Args:
            client: The server.
            knowledge_base: The knowledge base, its folder or its URI.
            reranker: The reranker, its folder or its name on the hub.
            device: Where the encoder and the reranker compute.
            calibration: A file of ``ragweave eval --calibrate``.
            **options: Further arguments of the class.

        Raises:
            ConfigurationError: There is no knowledge base.
        """
        if knowledge_base is None:
            raise ConfigurationError(
                "A generator behind a server answers from passages: name a knowledge base."
            )
        if not isinstance(knowledge_base, KnowledgeBase):
            knowledge_base = KnowledgeBase.open(knowledge_base)
        if isinstance(reranker, (str, Path)):
            from ragweave.encoders.late_interaction import load_reranker  # most questions need none

            reranker = load_reranker(reranker, device=device)
        if calibration is not None:
            options["confidence"] = CalibratedConfidence.load(Path(calibration))
        if device is not None:
            knowledge_base.encoder.model.to(device)
        return cls(client, knowledge_base, reranker=reranker, **options)

    @property
    def formulation(self) -> AnswerFormulation:
        """How this pipeline answers."""
        return self._formulation

    def with_formulation(self, formulation: AnswerFormulation) -> EndpointPipeline:
        """The same pipeline under RAG-Sequence, or with all passages of a question in one request ("concat").

        Raises:
            ConfigurationError: The formulation is neither of these.
        """
        if formulation not in self.formulations:
            raise ConfigurationError("A generator behind a server supports only 'sequence' and 'concat'.")
        other = copy.copy(self)
        other._formulation = formulation
        return other

    def rewrite(self, turns: Sequence[tuple[str, str]], question: str) -> str:
        """A follow-up, rewritten by the server to stand alone."""
        asked = f"{history_text(turns)}\nFollow-up: {question}"
        return self.client.complete(REWRITE, asked, MOST_TOKENS).text

    @property
    def _prefetches(self) -> bool:
        return True  # while the server generates, this machine waits

    def _prepare(
        self, questions: list[str], retrieved: RetrievalResult, *, extractive: bool, max_new_tokens: int
    ) -> _Batch:
        if extractive:
            raise ConfigurationError("A generator behind a server does not support extractive answers.")
        passages = retrieved.ranked_passages()
        if self._formulation == "concat":
            joined = concatenated(retrieved.docs, "\n")
            passages = [
                (ScoredPassage("", doc["title"][0], doc["text"][0], "", 0.0, 1.0),) if ranked else ()
                for doc, ranked in zip(joined, passages, strict=True)
            ]
        return _Batch(questions, retrieved, passages)

    def _answer(
        self,
        batch: _Batch,
        callback: BatchCallback | None,
        *,
        num_beams: int,
        max_new_tokens: int,
        decoding: Literal["fast", "thorough"] | None = None,
        **options: Any,
    ) -> list[EndpointAnswer | GeneratorError]:
        if options:
            raise ConfigurationError(
                f"A generator behind a server does not support {', '.join(options)}: leave it out."
            )
        scores = self.client.scores
        if num_beams != 1 or (decoding == "thorough" and not scores):
            raise ConfigurationError(
                "A generator behind a server does not support beam search. Thorough decoding needs the API "
                "'completions' or 'vllm', which score given answers."
            )
        pool = ThreadPoolExecutor(self.client.concurrency, thread_name_prefix="ragweave-generator")
        complete = partial(self.client.complete, self._instruction, max_tokens=max_new_tokens)

        def score(text: str, answer: str) -> Future[Completion]:
            return pool.submit(self.client.score, self._instruction, text, answer)

        try:
            rows = [
                [(passage, pool.submit(complete, _text(question, passage))) for passage in passages]
                for question, passages in zip(batch.questions, batch.passages, strict=True)
            ]
            answers: list[EndpointAnswer | GeneratorError] = []
            for b, (question, row) in enumerate(zip(batch.questions, rows, strict=True)):
                stopped = callback is not None and callback.should_stop(b)
                try:
                    hypotheses = _Hypotheses(question, [] if stopped else row)
                    if scores and decoding != "fast" and self._formulation == "sequence":
                        hypotheses.rescore(score)
                    answers.append(hypotheses.answer())
                except GeneratorError as error:
                    answers.append(error)
        finally:
            pool.shutdown(cancel_futures=True)
        if self._formulation == "sequence":
            return answers
        # With one request, the passage that an answer comes from is unknown.
        return [
            replace(answer, passages=tuple(RetrievedPassage.of(one, one.prior) for one in ranked), tokens=())
            if isinstance(answer, EndpointAnswer)
            else answer
            for answer, ranked in zip(answers, batch.retrieved.ranked_passages(), strict=True)
        ]


def _text(question: str, passage: ScoredPassage) -> str:
    # The passage comes first, so that a server with a prefix cache reads it once for all questions.
    text = "\n".join(filter(None, (passage.title, passage.text)))
    return f"Passage: {text}\n\nQuestion: {question}"


class _Hypotheses:
    """The answers to a question by text, each with its completions by passage."""

    def __init__(self, question: str, row: Sequence[tuple[ScoredPassage, Future[Completion]]]) -> None:
        self._question = question
        self._passages = [passage for passage, _ in row]
        self._failed: dict[int, str] = {}
        self._by_text: dict[str, dict[int, Completion]] = {}
        for k, completion in self._results({k: request for k, (_, request) in enumerate(row)}).items():
            self._by_text.setdefault(completion.text, {})[k] = completion
        self._check()

    def rescore(self, score: Callable[[str, str], Future[Completion]]) -> None:
        """Score each answer under each passage (thorough decoding)."""
        texts = {
            k: _text(self._question, passage)
            for k, passage in enumerate(self._passages)
            if k not in self._failed
        }
        requests = {answer: {k: score(text, answer) for k, text in texts.items()} for answer in self._by_text}
        scored = {answer: self._results(row) for answer, row in requests.items()}
        if not all(
            completion.agrees(scored[answer].get(k, completion))
            for answer, row in self._by_text.items()
            for k, completion in row.items()
        ):  # llama-cpp-python 0.3 shifts them by a token if a model has no begin token
            raise GeneratorError(
                "The server's probabilities of a prompt disagree with those of the same tokens when it generated "
                "them. Use --generator-api chat, or another server."
            )
        # A passage that failed for one answer is left out for all, so that the answers remain comparable.
        self._by_text = {
            answer: {k: completion for k, completion in row.items() if k not in self._failed}
            for answer, row in scored.items()
        }
        self._check()

    def _results(self, requests: Mapping[int, Future[Completion]]) -> dict[int, Completion]:
        results = {}
        for k, request in requests.items():
            try:
                results[k] = request.result()
            except GeneratorError as error:
                self._failed[k] = str(error)
        return results

    def _check(self) -> None:
        if self._passages and not any(self._by_text.values()):
            reason = next(iter(self._failed.values()))
            raise GeneratorError(f"There is no answer to {self._question!r} from any passage. {reason}")

    def answer(self) -> EndpointAnswer:
        """The answer with the largest p(y|x), and where it came from."""
        if not self._by_text:
            return EndpointAnswer(self._question, "", _NO_PASSAGE, ())
        passages = self._passages
        scores = torch.tensor([[passage.doc_score for passage in passages]], dtype=torch.float64)  # (1, K)
        one = torch.ones(1, 1, dtype=torch.bool)

        def log_probs(text: str) -> torch.Tensor:
            values = {k: completion.log_prob for k, completion in self._by_text[text].items()}
            row = [values.get(k, -math.inf) for k in range(len(passages))]
            return torch.tensor(row, dtype=torch.float64)[None, :, None]  # (1, K, 1)

        likelihoods = {
            text: float(sequence_log_likelihood(log_probs(text), one, scores)) for text in self._by_text
        }
        text = max(likelihoods, key=likelihoods.__getitem__)
        posterior = sequence_posterior(log_probs(text), one, scores)[0].tolist()
        order = sorted(range(len(passages)), key=lambda k: -posterior[k])
        retrieved = tuple(RetrievedPassage.of(passages[k], posterior[k]) for k in order)
        tokens = _tokens(text, self._by_text[text], scores, order, retrieved)
        failed = {passages[k].id: reason for k, reason in self._failed.items()}
        return EndpointAnswer(self._question, text, likelihoods[text], retrieved, tokens, failed=failed)


def load_pipeline(model: str | Path, *, server: ChatClient | None = None, **options: Any) -> AnswerPipeline:
    """Load a pipeline, with a generator in this process or on a server.

    Args:
        model: As in `RagPipeline.from_pretrained`; "embedded" if a server generates.
        server: The server, if one generates.
        **options: Arguments of `RagPipeline.from_pretrained`.

    Raises:
        ConfigurationError: An option is for generators of this process.
    """
    if server is None:
        return RagPipeline.from_pretrained(model, **options)
    formulation: AnswerFormulation = options.pop("formulation", None) or "sequence"
    neutral = {"dtype": "auto", "passage_cache": None, "adapter": True}
    unsupported = [name for name, value in neutral.items() if options.pop(name, value) != value]
    if str(model) != "embedded":
        unsupported.append("model")
    if unsupported:
        raise ConfigurationError(f"The generator is behind a server: leave out {unsupported[0]}.")
    return EndpointPipeline.from_pretrained(server, **options).with_formulation(formulation)


def _tokens(
    text: str,
    completions: Mapping[int, Completion],
    scores: torch.Tensor,
    order: Sequence[int],
    passages: Sequence[RetrievedPassage],
) -> tuple[AnswerToken, ...]:
    """The tokens with p(z | x, y_<=t); empty if the requests split the answer into different tokens."""
    (tokens, *others) = {completion.tokens for completion in completions.values()}
    if others or not tokens:
        return ()
    log_probs = torch.full((1, scores.shape[1], len(tokens)), -torch.inf, dtype=torch.float64)  # (1, K, T)
    for k, completion in completions.items():
        log_probs[0, k] = torch.tensor(completion.log_probs, dtype=torch.float64)
    scored = torch.ones(1, len(tokens), dtype=torch.bool)
    posteriors = prefix_posteriors(log_probs, scored, scores)[0][order].T.tolist()  # (T, K)
    return answer_tokens(text, tokens, posteriors, passages)
