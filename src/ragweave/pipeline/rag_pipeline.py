"""RagPipeline: questions in, answers with their provenance out.

The one object that the command line, the service and notebooks use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from ragweave.errors import ConfigurationError, ShapeError
from ragweave.retrieval.finding import question_length

if TYPE_CHECKING:
    from torch import Tensor

    from ragweave.encoders.text_encoder import TextEncoder
    from ragweave.knowledge.base import KnowledgeBase
    from ragweave.modeling.generation import MixtureGeneration
    from ragweave.pipeline.following import Following
    from ragweave.pipeline.streaming import Listener
    from ragweave.provenance.answers import Answer
    from ragweave.retrieval.finding import PassageFinder
    from ragweave.retrieval.index_protocol import Hits, PassageScorer
    from ragweave.retrieval.rag_retriever import RagRetriever
    from ragweave.types import ScoredPassage, SearchSettings

Formulation = Literal["token", "sequence"]
FORMULATIONS: tuple[Formulation, ...] = ("token", "sequence")
GeneratorDtype = Literal["auto", "float32", "bfloat16", "int8"]


@dataclass(frozen=True, slots=True)
class _Found:
    """What was found for B questions.

    Attributes:
        docs: Titles and texts as the index returned them, for each question.
        passages: The K passages of each question; ``None`` where there is none.
        doc_scores: Scaled passage scores, (B, K).
    """

    docs: list[dict[str, Any]]
    passages: list[list[ScoredPassage | None]]
    doc_scores: Tensor


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A batch of B questions, ready for the generator.

    Attributes:
        questions: The questions.
        found: Their passages.
        context_input_ids: Contexts, (B*K, S).
        context_attention_mask: Their mask, (B*K, S).
        allowed: What may be said next, where answers are held to the passages.
    """

    questions: list[str]
    found: _Found
    context_input_ids: Tensor
    context_attention_mask: Tensor
    allowed: Callable[..., list[int]] | None


class RagPipeline:
    """Answers questions from a knowledge base.

    Args:
        model: RAG-Token or RAG-Sequence.
        retriever: Retriever over the knowledge base; its documents carry "id" and "source" beside the texts.
        encoder: Encoder of the questions.
        extractive: Whether answers are runs of words of the passages where a call does not say.

    Example:
        ```python
        pipeline = RagPipeline.from_pretrained("embedded", knowledge_base="kb")
        answer = pipeline("What is the capital of Mongolia?")
        print(answer.answer, answer.passages[0].title)
        ```
    """

    def __init__(
        self,
        model: MixtureGeneration,
        retriever: RagRetriever,
        encoder: TextEncoder,
        *,
        extractive: bool = False,
    ) -> None:
        self.model = model
        self.extractive = extractive
        self.retriever = retriever
        self.encoder = encoder

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path = "embedded",
        *,
        knowledge_base: str | Path | KnowledgeBase | None,
        formulation: Formulation | None = None,
        search: SearchSettings | None = None,
        reranker: str | Path | PassageScorer | None = None,
        adapter: bool = True,
        dtype: GeneratorDtype = "auto",
        device: str | None = None,
    ) -> RagPipeline:
        """Load a model and open the knowledge base that it answers from.

        Args:
            name_or_path: "embedded", or the folder or hub name of a RAG model with its tokenizers.
            knowledge_base: Folder of a knowledge base, or URI of one in a database, or one that is open; ``None`` to
                answer without passages (closed book).
            formulation: "token" or "sequence"; the model's own where left out, "token" for "embedded".
            search: How the knowledge base is searched; what it leaves open, or all, as the model says
                (`RagConfig.retrieval`): by vectors and words for "embedded", by vectors alone for models that do not
                say.
            reranker: A cross-encoder that chooses and scores passages among the candidates of the search: a folder
                or name on the hub, or one that is loaded.
            adapter: Whether the generator of "embedded" has its question-answering adapter.
            dtype: Type that the generator computes in; "auto" is bfloat16 where the processor has it. "int8" is
                for processors; see `ragweave.modeling.quantization`.
            device: Where to compute, such as ``"cuda"``.

        Raises:
            ModelNotFoundError: There is no such model.
            KnowledgeBaseError: There is no such knowledge base, or it is damaged.
            EncoderMismatchError: The knowledge base was embedded with another encoder.
            ConfigurationError: ``formulation`` or ``dtype`` is none of the known words.
        """
        from ragweave.pipeline.loading import load_pipeline_parts

        parts = load_pipeline_parts(
            name_or_path,
            knowledge_base,
            formulation=formulation,
            search=search,
            reranker=reranker,
            adapter=adapter,
            dtype=dtype,
            device=device,
        )
        # Without passages there is nothing to take words from.
        held = parts[0].config.extractive and knowledge_base is not None
        return cls(*parts, extractive=held)

    @overload
    def __call__(self, questions: str, **options: Any) -> Answer: ...

    @overload
    def __call__(self, questions: Sequence[str], **options: Any) -> list[Answer]: ...

    def __call__(self, questions: str | Sequence[str], **options: Any) -> Answer | list[Answer]:
        """Answer one question, or several in their order.

        Args:
            questions: A question, or a sequence of them.
            **options: Arguments of `stream`.

        Returns:
            An `Answer` for a string, a list of them for a sequence.

        Raises:
            QuestionError: A question is empty, or longer than the encoder reads.
            ConfigurationError: An option has a value that cannot work.
        """
        if isinstance(questions, str):
            return next(answer for _, answer in self.stream([questions], **options))
        answers: list[Answer | None] = [None] * len(questions)
        for place, answer in self.stream(questions, **options):
            answers[place] = answer
        return [answer for answer in answers if answer is not None]

    def stream(
        self,
        questions: Sequence[str],
        *,
        n_docs: int | None = None,
        num_beams: int = 1,
        max_new_tokens: int = 32,
        batch_size: int = 8,
        extractive: bool | None = None,
        hits: Hits | None = None,
        progress: Callable[[int], None] | None = None,
        prefetch: bool | None = None,
        listener: Listener | None = None,
        **generate_options: Any,
    ) -> Iterator[tuple[int, Answer]]:
        """Answer questions batch by batch, those of like lengths together.

        Args:
            questions: The questions.
            n_docs: K, passages per question; the model's default where left out.
            num_beams: R, beams per question (RAG-Token) or per passage (RAG-Sequence).
            max_new_tokens: The longest answer, in tokens.
            batch_size: Questions answered together.
            extractive: Let answers be runs of words of the passages, and nothing else; the pipeline's own
                way where left out, which is so for "embedded" and free elsewhere.
            hits: What was found for the questions already, such as by `finder`; of it the first K are used.
            progress: Called after every batch with how many more questions are answered.
            prefetch: Encode the questions of a batch and retrieve for them, in a thread, while the one before is
                being answered; where left out, on an accelerator. A processor would only divide itself.
            listener: Hears of passages when they are found and of answers while they are made, and may stop them; a
                question that was stopped has as its answer what had been said. See `ragweave.pipeline.streaming`.
            **generate_options: Handed on to the model's ``generate``.

        Yields:
            A question's place in ``questions`` and its answer.

        Raises:
            QuestionError: A question is empty, or longer than the encoder reads.
            ConfigurationError: An option has a value that cannot work.
            ShapeError: ``hits`` are of another number of questions.
        """
        if hits is not None and len(hits.rows) != len(questions):
            raise ShapeError(f"hits are of {len(hits.rows)} questions, expected {len(questions)}.")
        self._check(n_docs=n_docs, num_beams=num_beams, max_new_tokens=max_new_tokens, batch_size=batch_size)
        lengths = [question_length(self.encoder, question) for question in questions]
        order = sorted(range(len(questions)), key=lambda place: lengths[place])
        if prefetch is None:
            prefetch = self.model.device.type != "cpu"
        batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        count = self._count(n_docs) if hits is None else min(self._wanted(n_docs), hits.rows.shape[1])
        held = self.extractive if extractive is None else extractive

        def following(places: list[int]) -> Following | None:
            from ragweave.pipeline.following import Following

            return None if listener is None else Following(listener, places)

        def prepare(places: list[int]) -> _Prepared:
            own = None if hits is None else hits.of(places, count)
            return self._prepare([questions[place].strip() for place in places], count, own, extractive=held)

        for places, prepared in zip(batches, _in_order(prepare, batches, ahead=prefetch), strict=True):
            answers = self._answer(
                prepared,
                following(places),
                num_beams=num_beams,
                max_new_tokens=max_new_tokens,
                **generate_options,
            )
            yield from zip(places, answers, strict=True)
            if progress is not None:
                progress(len(places))

    @property
    def finder(self) -> PassageFinder:
        """What finds passages in the knowledge base, without answering.

        Raises:
            ConfigurationError: The pipeline answers from something else than a knowledge base.
        """
        from ragweave.knowledge.knowledge_base_index import KnowledgeBaseIndex
        from ragweave.retrieval.finding import PassageFinder

        if not isinstance(self.retriever.index, KnowledgeBaseIndex):
            raise ConfigurationError("This pipeline has no knowledge base to find passages in.")
        return PassageFinder(self.encoder, self.retriever.index, self.model.config.doc_score_scale)

    def refresh(self) -> bool:
        """Answer the next questions from the knowledge base's version that is in force by now.

        Questions that are being answered end with the version they began with, batch by batch.

        Returns:
            Whether there was another version.

        Raises:
            KnowledgeBaseError: It is damaged; the pipeline keeps the one it has.
            EncoderMismatchError: It was embedded with another encoder.
        """
        from ragweave.knowledge.knowledge_base_index import KnowledgeBaseIndex

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
    def formulation(self) -> Formulation:
        """What this pipeline answers under."""
        from ragweave.modeling.token import RagTokenForGeneration

        return "token" if isinstance(self.model, RagTokenForGeneration) else "sequence"

    def with_formulation(self, formulation: Formulation) -> RagPipeline:
        """A pipeline of the same networks that answers under a formulation; this one where it does so already.

        Retriever and encoder are shared too, so that `refresh` of either is seen by both.

        Raises:
            ConfigurationError: ``formulation`` is neither "token" nor "sequence".
        """
        from ragweave.pipeline.loading import model_class

        wanted = model_class(formulation)
        if formulation == self.formulation:
            return self
        model = wanted(self.model.config, self.model.question_encoder, self.model.generator).eval()
        model.generation_config = self.model.generation_config
        return type(self)(model, self.retriever, self.encoder, extractive=self.extractive)

    def retrieve(
        self, questions: Sequence[str], *, n_docs: int | None = None
    ) -> list[tuple[ScoredPassage, ...]]:
        """Find passages without answering.

        Args:
            questions: The questions.
            n_docs: K, passages per question; the model's default where left out.

        Returns:
            The passages of each question, by falling p(z|x).

        Raises:
            QuestionError: A question is empty, or longer than the encoder reads.
            ConfigurationError: ``n_docs`` is below 1.
        """
        from ragweave.provenance.assembly import by_prior

        self._check(n_docs=n_docs)
        for question in questions:
            question_length(self.encoder, question)
        if not questions:
            return []
        found = self._find([question.strip() for question in questions], self._count(n_docs), None)
        return [by_prior(own) for own in found.passages]

    def _check(self, **counts: int | None) -> None:
        """Refuse counts below 1."""
        for name, value in counts.items():
            if value is not None and value < 1:
                raise ConfigurationError(f"{name} is {value}; it must be 1 or more.")

    def _wanted(self, n_docs: int | None) -> int:
        return n_docs or int(self.model.config.n_docs)

    def _count(self, n_docs: int | None) -> int:
        """K: what was asked for, or as many passages as there are."""
        index = self.retriever.index
        most = len(index) if isinstance(index, Sized) else self.model.config.n_docs
        return min(self._wanted(n_docs), max(most, 1))

    def _find(self, questions: list[str], n_docs: int, hits: Hits | None) -> _Found:
        """Encode questions and find their passages, or look up those that were found already."""
        import torch

        from ragweave.provenance.assembly import found_passages

        # A copy has one index throughout, though `refresh` may put another in its place meanwhile.
        retriever = copy(self.retriever)
        with torch.inference_mode():
            vectors = self.encoder.encode(questions)
            if hits is None:
                hits = retriever.search(vectors, n_docs, question_strings=questions)
            docs = retriever.index.get_doc_dicts(hits.rows)
            scores = self.model.rag.score_passages(
                torch.from_numpy(vectors),
                torch.from_numpy(hits.vectors),
                torch.from_numpy(hits.rows),
                weights=None if hits.weights is None else torch.from_numpy(hits.weights),
                offsets=None if hits.offsets is None else torch.from_numpy(hits.offsets),
            )
        passages = [found_passages(*own) for own in zip(docs, hits.rows, scores, strict=True)]
        return _Found(docs, passages, scores)

    def _prepare(
        self, questions: list[str], n_docs: int, hits: Hits | None, *, extractive: bool
    ) -> _Prepared:
        """Find passages for questions and make the generator's contexts: all that comes before it."""
        found = self._find(questions, n_docs, hits)
        input_ids, mask = self.retriever.postprocess_docs(
            found.docs, questions, None, n_docs, return_tensors="pt", padding="longest"
        )
        allowed = self._spans_only(found.docs) if extractive else None
        return _Prepared(questions, found, input_ids, mask, allowed)

    def _answer(self, prepared: _Prepared, following: Following | None, **options: Any) -> list[Answer]:
        """Read the contexts once, generate from them, and find out where the answers came from."""
        import torch

        from ragweave.outputs import RetrievedContexts
        from ragweave.provenance.assembly import assemble
        from ragweave.provenance.posteriors import explain

        device, tokenizer = self.model.device, self.retriever.generator_tokenizer
        if prepared.allowed is not None:
            options["prefix_allowed_tokens_fn"] = prepared.allowed
        if following is not None:
            following.begin(self.model, tokenizer, prepared.found.passages, options)
        with torch.inference_mode():
            given = RetrievedContexts(
                prepared.context_input_ids.to(device),
                prepared.context_attention_mask.to(device),
                prepared.found.doc_scores.to(device),
            )
            read = self.model.rag.read(given, reuse=True)
            sequences = self.model.generate(
                context_input_ids=given.context_input_ids,
                context_attention_mask=given.context_attention_mask,
                doc_scores=given.doc_scores,
                encoder_outputs=read,
                **options,
            )
            provenance = explain(self.model, read, given.doc_scores, sequences)
        answers = assemble(prepared.questions, prepared.found.passages, sequences, provenance, tokenizer)
        if following is not None:
            following.finish(answers)
        return answers

    def _spans_only(self, docs: list[dict[str, Any]]) -> Callable[..., list[int]]:
        """Hold each question's answer to the words of its passages."""
        from ragweave.modeling.extractive import PassageSpans, spans_only

        tokenizer, eos = self.retriever.generator_tokenizer, self.model.rag.eos_token_id
        if eos is None:
            raise ConfigurationError("Extractive answers need an end token; this generator has none.")
        texts = [[*doc["text"], *doc["title"]] for doc in docs]
        return spans_only([PassageSpans(own, tokenizer, eos_token_id=eos) for own in texts])


def _in_order(
    prepare: Callable[[list[int]], _Prepared], batches: list[list[int]], *, ahead: bool
) -> Iterator[_Prepared]:
    """Prepare batches one after another; with ``ahead``, each while the one before is in use."""
    if not ahead:
        yield from map(prepare, batches)
        return
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="ragweave-prefetch") as pool:
        coming = pool.submit(prepare, batches[0]) if batches else None
        for following in [*batches[1:], None]:
            if coming is None:
                return
            ready = coming.result()
            coming = None if following is None else pool.submit(prepare, following)
            yield ready
