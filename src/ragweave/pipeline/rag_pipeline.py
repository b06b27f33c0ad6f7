"""RagPipeline: questions in, answers from a RAG model with their provenance out.

Notation used for tensor shapes: B questions, K passages per question, T answer tokens.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ragweave.encoders.text_encoder import TextEncoder
from ragweave.errors import ConfigurationError
from ragweave.knowledge.base import KnowledgeBase
from ragweave.modeling.extractive import PassageSpans, SpansOnly, runs_of
from ragweave.modeling.generation import RagForGeneration
from ragweave.modeling.passage_cache import PassageCache, PassageReuse
from ragweave.modeling.token import PcedForGeneration, RagTokenForGeneration
from ragweave.outputs import RetrievedContexts
from ragweave.pipeline.answer_pipeline import AnswerPipeline, concatenated
from ragweave.pipeline.loading import load_parts, make_passage_cache, model_class, passage_cache_sizes
from ragweave.provenance.answers import Answer
from ragweave.provenance.confidence import UNCALIBRATED, CalibratedConfidence
from ragweave.provenance.posteriors import Provenance, assemble, explain
from ragweave.retrieval.context_template import answer_ids
from ragweave.retrieval.index_protocol import PassageScorer
from ragweave.retrieval.rag_retriever import RagRetriever
from ragweave.retrieval.retriever import RetrievalResult
from ragweave.types import AnswerFormulation, AnswerStyle, GeneratorDtype, SearchSettings

if TYPE_CHECKING:
    from ragweave.pipeline.streaming import BatchCallback


@dataclass(frozen=True, slots=True)
class Batch:
    """B questions and their contexts, ready for the generator."""

    questions: list[str]
    retrieved: RetrievalResult
    input_ids: Tensor  # (B*K, S)
    attention_mask: Tensor  # (B*K, S)
    allowed: Callable[..., list[int]] | None  # the tokens that may follow, for extractive answers
    passages: PassageReuse | None = None  # where passages end, for a causal generator


class RagPipeline(AnswerPipeline):
    """Answers questions from a knowledge base.

    Args:
        model: RAG-Token or RAG-Sequence.
        retriever: Retriever over the knowledge base; its documents have "id" and "source" in addition to the texts.
        encoder: Encoder of the questions.
        extractive: Whether answers are runs of words of the passages, by default.
        confidence: Estimates how likely an answer is to be right; p(y|x) by default.
        min_confidence: The lowest confidence at which to give an answer; by default the threshold of ``confidence``.
            0 gives every answer.
        passage_cache: Keeps a causal generator's keys and values of passages for later questions.

    Example:
        ```python
        pipeline = RagPipeline.from_pretrained("embedded", knowledge_base="kb")
        answer = pipeline("What is the capital of Mongolia?")
        print(answer.answer, answer.passages[0].title)
        ```
    """

    model: RagForGeneration

    def __init__(
        self,
        model: RagForGeneration,
        retriever: RagRetriever,
        encoder: TextEncoder,
        *,
        extractive: bool = False,
        confidence: CalibratedConfidence = UNCALIBRATED,
        min_confidence: float | None = None,
        passage_cache: PassageCache | None = None,
    ) -> None:
        self.model = model
        self.config = model.config
        self.passage_cache = passage_cache
        self.extractive = extractive
        self.confidence = confidence
        self.min_confidence = confidence.threshold if min_confidence is None else min_confidence
        self.retriever = retriever
        self.encoder = encoder
        self._concatenates = False
        # Passages are read again and again; 1,024 texts take about 40 MB.
        self._runs_of = lru_cache(1024)(partial(runs_of, tokenizer=retriever.generator_tokenizer))

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path = "embedded",
        *,
        knowledge_base: str | Path | KnowledgeBase | None,
        formulation: AnswerFormulation | None = None,
        search: SearchSettings | None = None,
        reranker: str | Path | PassageScorer | None = None,
        adapter: bool = True,
        answer_style: AnswerStyle | None = None,
        dtype: GeneratorDtype = "auto",
        device: str | None = None,
        calibration: str | Path | None = None,
        min_confidence: float | None = None,
        passage_cache: int | str | None = None,
        **placement: Any,
    ) -> RagPipeline:
        """Load a model and open the knowledge base that it answers from.

        Args:
            name_or_path: "embedded", or the folder or hub name of a RAG model with its tokenizers, or of any causal
                language model (or a GGUF file of one), which then generates, with the knowledge base's encoder.
            knowledge_base: Folder of a knowledge base, URI of one in a database, or an open one; ``None`` to answer
                without passages (closed book).
            formulation: "token", "sequence", "concat" for one prompt of all passages, or "pced"; by default the
                model's own, "token" for "embedded".
            search: How to search the knowledge base. The model's defaults (`RagConfig.retrieval`) fill unset
                options: vectors and words for "embedded", vectors alone for models without defaults.
            reranker: A cross-encoder or late-interaction model that chooses and scores passages among the candidates
                of the search: a folder, a name on the hub, or a loaded one.
            adapter: Whether the generator of "embedded" has its question-answering adapter.
            answer_style: How a causal language model is told to answer: "short" (the default), "sentence" or "long".
            dtype: Type that the generator computes in; "auto" is bfloat16 on processors that support it. "int8" is
                for processors; see `ragweave.modeling.quantization`.
            device: Where to compute, such as ``"cuda"``.
            calibration: A file of ``ragweave eval --calibrate``; by default the model's own, if it has one.
            min_confidence: The lowest confidence at which to give an answer; the calibration's threshold by default.
            passage_cache: Maximum memory for keys and values of passages that a causal generator has read, in bytes
                or as a text such as "1GiB"; 0 for none. By default an eighth of the free memory, at most 1 GiB.
                "1GiB+4GiB" also sets the host memory that extends an accelerator's.
            **placement: ``device_map`` and ``quantization_config``, with which transformers loads a causal language
                model on accelerators, in place of ``device``.

        Raises:
            ModelNotFoundError: There is no such model.
            DataError: ``calibration`` is not a calibration.
            KnowledgeBaseError: There is no such knowledge base, or it is damaged.
            EncoderMismatchError: The knowledge base was embedded with another encoder.
            ConfigurationError: ``formulation`` or ``dtype`` is unknown, or ``passage_cache`` is not a size.
        """
        if unknown := placement.keys() - {"device_map", "quantization_config"}:
            raise TypeError(f"from_pretrained has no argument {min(unknown)!r}.")
        sizes = passage_cache_sizes(passage_cache)
        parts = load_parts(
            name_or_path,
            knowledge_base,
            formulation=formulation,
            search=search,
            reranker=reranker,
            adapter=adapter,
            answer_style=answer_style,
            dtype=dtype,
            device=device,
            calibration=None if calibration is None else Path(calibration),
            placement={name: value for name, value in placement.items() if value is not None},
        )
        # A closed-book pipeline has no passages to take words from.
        extractive = parts.model.config.extractive and knowledge_base is not None
        pipeline = cls(
            parts.model,
            parts.retriever,
            parts.encoder,
            extractive=extractive,
            confidence=parts.confidence,
            min_confidence=min_confidence,
            passage_cache=make_passage_cache(parts, sizes),
        )
        return pipeline.with_formulation(formulation or pipeline.formulation)

    @property
    def formulation(self) -> AnswerFormulation:
        """How this pipeline answers."""
        if self._concatenates:
            return "concat"
        if isinstance(self.model, PcedForGeneration):
            return "pced"
        return "token" if isinstance(self.model, RagTokenForGeneration) else "sequence"

    def with_formulation(self, formulation: AnswerFormulation) -> RagPipeline:
        """A pipeline of the same networks under another formulation; this one if it is the same.

        Under "concat", the generator reads all passages of a question in one prompt, as in most systems. Nothing is
        marginalised, so the posteriors of the passages are the retriever's p(z|x). Under "pced", `PcedForGeneration`
        chooses the tokens; likelihood and posteriors are those of the answer under RAG-Token.

        Both pipelines share retriever and encoder, so `refresh` of either affects both.

        Raises:
            ConfigurationError: ``formulation`` is not "token", "sequence", "concat" or "pced".
        """
        cls = model_class(formulation)
        if formulation == self.formulation:
            return self
        other = copy.copy(self)
        other._concatenates = formulation == "concat"
        other.model = cls(self.config, self.model.question_encoder, self.model.generator).eval()
        other.model.generation_config = self.model.generation_config
        return other

    @property
    def _prefetches(self) -> bool:
        return self.model.device.type != "cpu"  # on a CPU both would share the same cores

    def _prepare(
        self, questions: list[str], retrieved: RetrievalResult, *, extractive: bool, max_new_tokens: int
    ) -> Batch:
        """Make the generator's contexts."""
        docs, n_docs, passages = retrieved.docs, retrieved.rows.shape[1], None
        allowed = self._spans_only(docs) if extractive else None
        config, longest = self.config, None
        if self._concatenates:
            docs = concatenated(docs, config.title_sep)
            longest = longest_prompt(self.model, n_docs * config.max_combined_length, max_new_tokens)
            n_docs = 1
        elif self.formulation == "pced":  # also reads the question without a passage
            docs = [{"title": [*doc["title"], ""], "text": [*doc["text"], ""]} for doc in docs]
            n_docs += 1
        input_ids, mask = self.retriever.postprocess_docs(
            docs, questions, None, n_docs, return_tensors="pt", padding="longest", max_length=longest
        )
        if longest is not None and mask.shape[1] > longest - 32:  # texts are cut between words
            warnings.warn(
                f"A prompt of all passages fills the {longest} tokens that the generator and max_combined_length "
                "leave room for, so that its end may be cut off. Lower n_docs.",
                stacklevel=2,
            )
        if config.generator_is_causal and not self._concatenates:
            lengths = self.retriever.passage_lengths(input_ids, mask, questions)
            passages = PassageReuse(lengths, self.passage_cache)
        return Batch(questions, retrieved, input_ids, mask, allowed, passages)

    def _answer(self, batch: Batch, callback: BatchCallback | None, **options: Any) -> list[Answer]:
        """Read the contexts once, generate from them, and compute where the answers came from."""
        device, tokenizer = self.model.device, self.retriever.generator_tokenizer
        passages, empty = batch.retrieved.passages, batch.retrieved.is_empty
        if batch.allowed is not None:
            options["prefix_allowed_tokens_fn"] = batch.allowed
        if callback is not None:
            callback.begin(self.model, tokenizer, options)
        with torch.inference_mode():
            # If no passage was found, the generator reads an empty context, and the answer is withheld.
            logits = np.where(empty[:, None], np.float32(0), batch.retrieved.scores)
            scores = torch.from_numpy(logits).to(device)
            contexts = RetrievedContexts(
                batch.input_ids.to(device), batch.attention_mask.to(device), self._context_scores(scores)
            )
            encoded = self.model.rag.encode_contexts(contexts, reuse=True, passages=batch.passages)
            output = self.model.generate(
                context_input_ids=contexts.context_input_ids,
                context_attention_mask=contexts.context_attention_mask,
                doc_scores=contexts.doc_scores,
                encoder_outputs=encoded,
                return_dict_in_generate=True,
                **options,
            )
            sequences, log_probs = output.sequences, output.get("passage_log_probs")
            null_answer, causal = self.config.null_answer, self.config.generator_is_causal
            null_ids = None if null_answer is None else answer_ids(tokenizer, null_answer, causal=causal)
            provenance = explain(self.model, encoded, contexts.doc_scores, sequences, null_ids, log_probs)
            if self._concatenates:
                provenance = over_passages(provenance, scores)
            elif self.formulation == "pced":
                provenance = without_last(provenance)
        return assemble(batch.questions, passages, sequences, provenance, tokenizer)

    def _context_scores(self, scores: Tensor) -> Tensor:
        """Scores of the generator's contexts, from the scores of the passages, (B, K)."""
        if self._concatenates:
            return torch.zeros_like(scores[:, :1])
        return pad(scores, (0, 1), value=float("-inf")) if self.formulation == "pced" else scores

    def _spans_only(self, docs: list[dict[str, Any]]) -> Callable[..., list[int]]:
        """Restrict each question's answer to runs of words of its passages."""
        tokenizer, eos = self.retriever.generator_tokenizer, self.model.rag.special_tokens.eos
        if eos is None:
            raise ConfigurationError("Extractive answers need an end token; this generator has none.")
        fixed, joins = self.config.fixed_answers or (), self.config.answer_joins or ()
        texts = [[*doc["text"], *doc["title"], *fixed] for doc in docs]
        spans = partial(PassageSpans, tokenizer=tokenizer, eos_token_id=eos, joins=joins, runs=self._runs_of)
        return SpansOnly([spans(text) for text in texts])


def longest_prompt(model: RagForGeneration, wanted: int, max_new_tokens: int) -> int:
    """Maximum length of a prompt of all passages, which leaves a causal generator room for the answer."""
    config = model.generator.config
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None:
        return wanted
    return min(wanted, positions if config.is_encoder_decoder else positions - max_new_tokens)


def over_passages(provenance: Provenance, scores: Tensor) -> Provenance:
    """The provenance of an answer from one prompt of K passages.

    The prompt has one likelihood, so p(y | x, z) is the same for every passage z. By Bayes' rule, the posterior then
    equals the retriever's p(z|x).

    Args:
        provenance: Of B answers from one context each.
        scores: Logits of p(z|x), (B, K).
    """
    n_docs, prior = scores.shape[1], scores.softmax(-1)
    null = provenance.null_log_probs
    return replace(
        provenance,
        posterior=prior,
        token_posteriors=prior[..., None].expand(-1, -1, provenance.token_posteriors.shape[2]),
        null_log_probs=None if null is None else null.expand(-1, n_docs),
    )


def without_last(provenance: Provenance) -> Provenance:
    """The provenance of K passages, from that of K+1 contexts, the last of which has the posterior 0."""
    null = provenance.null_log_probs
    return replace(
        provenance,
        posterior=provenance.posterior[:, :-1],
        token_posteriors=provenance.token_posteriors[:, :-1],
        null_log_probs=None if null is None else null[:, :-1],
    )
