"""RagPipeline: questions in, answers with their provenance out.

The command line, the service, evaluation and training all use this one object.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence, Sized
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch

from ragweave.encoders.text_encoder import TextEncoder
from ragweave.errors import ConfigurationError, ShapeError
from ragweave.knowledge.base import KnowledgeBase
from ragweave.knowledge.knowledge_base_index import KnowledgeBaseIndex
from ragweave.modeling.extractive import PassageSpans, runs_of, spans_only
from ragweave.modeling.generation import RagForGeneration
from ragweave.modeling.passage_cache import PassageCache, PassageReuse
from ragweave.modeling.token import RagTokenForGeneration
from ragweave.outputs import RetrievedContexts
from ragweave.pipeline.batches import Batch, concatenated, in_order, longest_prompt, over_passages
from ragweave.pipeline.conversation import Conversation
from ragweave.pipeline.loading import load_parts, make_passage_cache, model_class, passage_cache_sizes
from ragweave.provenance.answers import Answer
from ragweave.provenance.confidence import UNCALIBRATED, CalibratedConfidence, judged, nothing_found
from ragweave.provenance.posteriors import assemble, explain
from ragweave.retrieval.context_template import answer_ids
from ragweave.retrieval.index_protocol import PassageScorer
from ragweave.retrieval.rag_retriever import RagRetriever
from ragweave.retrieval.retriever import RetrievalResult, Retriever
from ragweave.types import AnswerFormulation, GeneratorDtype, SearchSettings

if TYPE_CHECKING:
    from ragweave.pipeline.streaming import AnswerCallback, BatchCallback


class RagPipeline:
    """Answers questions from a knowledge base.

    Args:
        model: RAG-Token or RAG-Sequence.
        retriever: Retriever over the knowledge base; its documents carry "id" and "source" beside the texts.
        encoder: Encoder of the questions.
        extractive: Whether answers are runs of words of the passages, if a call does not say.
        confidence: How likely an answer is right; without one, p(y|x).
        min_confidence: From which confidence on to give an answer, if a call does not say; by default the threshold
            of ``confidence``. 0 gives every answer.
        passage_cache: Keeps what a causal generator computes of passages for later questions.

    Example:
        ```python
        pipeline = RagPipeline.from_pretrained("embedded", knowledge_base="kb")
        answer = pipeline("What is the capital of Mongolia?")
        print(answer.answer, answer.passages[0].title)
        ```
    """

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
        dtype: GeneratorDtype = "auto",
        device: str | None = None,
        calibration: str | Path | None = None,
        min_confidence: float | None = None,
        passage_cache: int | str | None = None,
    ) -> RagPipeline:
        """Load a model and open the knowledge base that it answers from.

        Args:
            name_or_path: "embedded", or the folder or hub name of a RAG model with its tokenizers.
            knowledge_base: Folder of a knowledge base, URI of one in a database, or an open one; ``None`` to answer
                without passages (closed book).
            formulation: "token", "sequence", or "concat" for one prompt of all passages; by default the model's own,
                "token" for "embedded".
            search: How to search the knowledge base. The model's defaults (`RagConfig.retrieval`) fill what is left
                open: vectors and words for "embedded", vectors alone for models that do not say.
            reranker: A cross-encoder or late-interaction model that chooses and scores passages among the candidates
                of the search: a folder, a name on the hub, or a loaded one.
            adapter: Whether the generator of "embedded" has its question-answering adapter.
            dtype: Type that the generator computes in; "auto" is bfloat16 on processors that support it. "int8" is
                for processors; see `ragweave.modeling.quantization`.
            device: Where to compute, such as ``"cuda"``.
            calibration: A file of ``ragweave eval --calibrate``; by default the model's own, if it has one.
            min_confidence: From which confidence on to give an answer; the calibration's threshold by default.
            passage_cache: The most memory for keys and values of passages that a causal generator has read, in bytes
                or as a text such as "1GiB"; 0 for none. By default an eighth of the memory that is free, at most
                1 GiB. "1GiB+4GiB" also sets the host's memory behind an accelerator's.

        Raises:
            ModelNotFoundError: There is no such model.
            DataError: ``calibration`` is no calibration.
            KnowledgeBaseError: There is no such knowledge base, or it is damaged.
            EncoderMismatchError: The knowledge base was embedded with another encoder.
            ConfigurationError: ``formulation`` or ``dtype`` is unknown, or ``passage_cache`` is no size.
        """
        sizes = passage_cache_sizes(passage_cache)
        parts = load_parts(
            name_or_path,
            knowledge_base,
            formulation="token" if formulation == "concat" else formulation,
            search=search,
            reranker=reranker,
            adapter=adapter,
            dtype=dtype,
            device=device,
            calibration=None if calibration is None else Path(calibration),
        )
        # Closed book, there are no passages to take words from.
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

    @overload
    def __call__(self, questions: str, **options: Any) -> Answer: ...

    @overload
    def __call__(self, questions: Sequence[str], **options: Any) -> list[Answer]: ...

    def __call__(self, questions: str | Sequence[str], **options: Any) -> Answer | list[Answer]:
        """Answer one question, or several.

        Args:
            questions: A question, or a sequence of them.
            **options: Arguments of `stream`.

        Returns:
            An `Answer` for a string, a list in the order of the questions for a sequence.

        Raises:
            QuestionError: A question is empty, or longer than the encoder reads.
            ConfigurationError: An option has an invalid value.
        """
        if isinstance(questions, str):
            return next(answer for _, answer in self.stream([questions], **options))
        answers = dict(self.stream(questions, **options))
        return [answers[position] for position in range(len(questions))]

    def stream(
        self,
        questions: Sequence[str],
        *,
        n_docs: int | None = None,
        num_beams: int = 1,
        max_new_tokens: int = 32,
        batch_size: int = 8,
        extractive: bool | None = None,
        min_confidence: float | None = None,
        where: str | None = None,
        retrieved: RetrievalResult | None = None,
        progress: Callable[[int], None] | None = None,
        prefetch: bool | None = None,
        callback: AnswerCallback | None = None,
        **generate_options: Any,
    ) -> Iterator[tuple[int, Answer]]:
        """Answer questions batch by batch, questions of similar length together.

        Args:
            questions: The questions.
            n_docs: K, passages per question; the model's default if not given.
            num_beams: R, beams per question (RAG-Token) or per passage (RAG-Sequence).
            max_new_tokens: The longest answer, in tokens.
            batch_size: Questions answered together.
            extractive: Whether answers must be runs of words of the passages; the pipeline's default if not given.
            min_confidence: From which confidence on to give an answer; the pipeline's default if not given. Below it,
                the answer is `NO_ANSWER`.
            where: A condition that passages must meet, beside that of the search settings.
            retrieved: The passages of the questions, from `retrieve` or `text_retriever`; the first K are used.
            progress: Called after every batch with the number of questions it answered.
            prefetch: Whether a thread encodes and retrieves the next batch while one is answered. By default it does
                on an accelerator; on a processor both would share the same cores.
            callback: Receives passages and text as they become known, and may stop a question, whose answer is then
                the text so far. See `ragweave.pipeline.streaming`.
            **generate_options: Arguments of the model's ``generate``.

        Yields:
            A question's position in ``questions`` and its answer.

        Raises:
            QuestionError: A question is empty, or longer than the encoder reads.
            ConfigurationError: An option has an invalid value.
            ShapeError: ``retrieved`` belongs to another number of questions.
        """
        if retrieved is not None and len(retrieved) != len(questions):
            raise ShapeError(f"retrieved holds {len(retrieved)} questions, expected {len(questions)}.")
        _check_positive(
            n_docs=n_docs, num_beams=num_beams, max_new_tokens=max_new_tokens, batch_size=batch_size
        )
        lengths = [self.encoder.question_length(question) for question in questions]
        order = sorted(range(len(questions)), key=lambda position: lengths[position])
        batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        prefetch = self.model.device.type != "cpu" if prefetch is None else prefetch
        extractive = self.extractive if extractive is None else extractive
        threshold = self.min_confidence if min_confidence is None else min_confidence
        if not 0 <= threshold <= 1:
            raise ConfigurationError(f"min_confidence is {threshold}: give a number from 0 to 1.")

        if callback is not None:
            from ragweave.pipeline.streaming import BatchCallback  # most calls wait for the whole answer

        def prepare(positions: list[int]) -> Batch:
            texts = [questions[position].strip() for position in positions]
            if retrieved is None:
                found = self.retrieve(texts, n_docs=n_docs, where=where)
            else:
                k = min(n_docs or self.model.config.n_docs, retrieved.rows.shape[1])
                found = retrieved.select(positions, k)
            return self._prepare(texts, found, extractive=extractive, max_new_tokens=max_new_tokens)

        for positions, batch in zip(batches, in_order(prepare, batches, prefetch=prefetch), strict=True):
            whole = threshold > 0 or bool(batch.retrieved.is_empty.any())
            answers = self._answer(
                batch,
                threshold,
                None if callback is None else BatchCallback(callback, positions, whole=whole),
                num_beams=num_beams,
                max_new_tokens=max_new_tokens,
                **generate_options,
            )
            yield from zip(positions, answers, strict=True)
            if progress is not None:
                progress(len(positions))

    def chat(self) -> Conversation:
        """A conversation, whose follow-ups may lean on what was said."""
        return Conversation(self)

    def retrieve(
        self, questions: Sequence[str], *, n_docs: int | None = None, where: str | None = None
    ) -> RetrievalResult:
        """Retrieve passages without answering.

        Args:
            questions: B questions.
            n_docs: K, passages per question; the model's default if not given. It is at most the number of passages
                in the knowledge base.
            where: A condition that passages must meet, beside that of the search settings.

        Raises:
            QuestionError: A question is empty, or longer than the encoder reads.
            ConfigurationError: ``n_docs`` is below 1, or the condition is invalid or names what no passage has.
        """
        _check_positive(n_docs=n_docs)
        retriever = self.text_retriever if where is None else self.text_retriever.narrowed(where)
        wanted = n_docs or int(self.model.config.n_docs)
        size = len(retriever.index) if isinstance(retriever.index, Sized) else wanted
        with torch.inference_mode():
            return retriever.retrieve(questions, min(wanted, max(size, 1)))

    @property
    def text_retriever(self) -> Retriever:
        """The retriever of this pipeline's index and encoder; `refresh` does not change it."""
        config = self.model.config
        return Retriever(
            self.retriever.index, self.encoder, config.doc_score_scale, config.retrieval_batch_size
        )

    @property
    def knowledge_base(self) -> KnowledgeBase:
        """The version of the knowledge base that the pipeline answers from.

        Raises:
            ConfigurationError: The pipeline answers from another kind of index.
        """
        index = self.retriever.index
        if not isinstance(index, KnowledgeBaseIndex):
            raise ConfigurationError("This pipeline has no knowledge base: load it with knowledge_base=... .")
        return index.base

    def refresh(self) -> bool:
        """Answer the next batches from the current version of the knowledge base.

        A batch that is being answered keeps the version it started with.

        Returns:
            Whether there was another version.

        Raises:
            KnowledgeBaseError: The current version is damaged; the pipeline keeps the one it has.
            EncoderMismatchError: It was embedded with another encoder.
        """
        index = self.retriever.index
        if not isinstance(index, KnowledgeBaseIndex):
            return False
        latest = index.base.latest()
        if latest is index.base:
            return False
        if latest.manifest.encoder != index.base.manifest.encoder:
            latest.check_encoder(self.encoder)
        self.retriever.index = index.over(latest)
        return True

    @property
    def formulation(self) -> AnswerFormulation:
        """The formulation that this pipeline answers under."""
        if self._concatenates:
            return "concat"
        return "token" if isinstance(self.model, RagTokenForGeneration) else "sequence"

    def with_formulation(self, formulation: AnswerFormulation) -> RagPipeline:
        """A pipeline of the same networks under another formulation; this one if it is the same.

        Under "concat", the generator reads all passages of a question in one prompt, as in most systems. Nothing is
        marginalised, so the posteriors of the passages are the retriever's p(z|x).

        Both pipelines share retriever and encoder, so `refresh` of either affects both.

        Raises:
            ConfigurationError: ``formulation`` is none of "token", "sequence" and "concat".
        """
        cls = model_class("token" if formulation == "concat" else formulation)
        if formulation == self.formulation:
            return self
        other = copy.copy(self)
        other._concatenates = formulation == "concat"
        other.model = cls(self.model.config, self.model.question_encoder, self.model.generator).eval()
        other.model.generation_config = self.model.generation_config
        return other

    def _prepare(
        self, questions: list[str], retrieved: RetrievalResult, *, extractive: bool, max_new_tokens: int
    ) -> Batch:
        """Make the generator's contexts."""
        docs, n_docs, passages = retrieved.docs, retrieved.rows.shape[1], None
        allowed = self._spans_only(docs) if extractive else None
        config, longest = self.model.config, None
        if self._concatenates:
            docs = concatenated(docs, config.title_sep)
            longest = longest_prompt(self.model, n_docs * config.max_combined_length, max_new_tokens)
            n_docs = 1
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

    def _answer(
        self, batch: Batch, threshold: float, callback: BatchCallback | None, **options: Any
    ) -> list[Answer]:
        """Read the contexts once, generate from them, and compute where the answers came from."""
        device, tokenizer = self.model.device, self.retriever.generator_tokenizer
        passages, empty = batch.retrieved.passages, batch.retrieved.is_empty
        if batch.allowed is not None:
            options["prefix_allowed_tokens_fn"] = batch.allowed
        if callback is not None:
            callback.begin(self.model, tokenizer, passages, options)
        with torch.inference_mode():
            # Where there is no passage, an empty context is read, and the answer not given.
            scores = torch.from_numpy(np.where(empty[:, None], np.float32(0), batch.retrieved.scores)).to(
                device
            )
            contexts = RetrievedContexts(
                batch.input_ids.to(device),
                batch.attention_mask.to(device),
                torch.zeros_like(scores[:, :1]) if self._concatenates else scores,
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
            sequences = output.sequences
            null_answer = self.model.config.null_answer
            causal = self.model.config.generator_is_causal
            null_ids = None if null_answer is None else answer_ids(tokenizer, null_answer, causal=causal)
            log_probs = output.get("passage_log_probs")
            provenance = explain(self.model, encoded, contexts.doc_scores, sequences, null_ids, log_probs)
            if self._concatenates:
                provenance = over_passages(provenance, scores)
        answers = assemble(batch.questions, passages, sequences, provenance, tokenizer)
        answers = [
            nothing_found(answer) if is_empty else judged(answer, self.confidence, threshold)
            for answer, is_empty in zip(answers, empty.tolist(), strict=True)
        ]
        if callback is not None:
            callback.finish(answers)
        return answers

    def _spans_only(self, docs: list[dict[str, Any]]) -> Callable[..., list[int]]:
        """Restrict each question's answer to runs of words of its passages."""
        tokenizer, eos = self.retriever.generator_tokenizer, self.model.rag.special_tokens.eos
        if eos is None:
            raise ConfigurationError("Extractive answers need an end token; this generator has none.")
        fixed, joins = self.model.config.fixed_answers or (), self.model.config.answer_joins or ()
        texts = [[*doc["text"], *doc["title"], *fixed] for doc in docs]
        spans = partial(PassageSpans, tokenizer=tokenizer, eos_token_id=eos, joins=joins, runs=self._runs_of)
        return spans_only([spans(text) for text in texts])


def _check_positive(**counts: int | None) -> None:
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ConfigurationError(f"{name} is {value}; it must be 1 or more.")
