"""Code shared by the RAG models of torch and TensorFlow, apart from networks. Imports neither framework.

Notation used for tensor shapes
    B questions, K passages per question, R rows per question and passage, S context tokens, T target tokens.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Protocol, Self

import numpy as np
from transformers import GenerationConfig

from ragweave.configuration import RagConfig
from ragweave.errors import ConfigurationError, MissingContextError, ShapeError
from ragweave.model_files import refuse_code
from ragweave.outputs import RetrievedContexts
from ragweave.types import Pooling

# Labels that are not scored, as in torch's cross entropy.
IGNORE_INDEX = -100


class RetrieverProtocol(Protocol):
    """The retriever that a model calls; usually a `ragweave.RagRetriever`."""

    def __call__(
        self,
        question_input_ids: Any,
        question_hidden_states: np.ndarray,
        prefix: str | None = None,
        n_docs: int | None = None,
        return_tensors: str | None = None,
    ) -> Any:
        """Retrieve passages for B questions and make the generator's contexts from them."""
        ...


def resolve_config(
    config: RagConfig | None, question_encoder: Any, generator: Any, **kwargs: Any
) -> RagConfig:
    """The caller's configuration, or one made from the two models.

    Raises:
        ConfigurationError: There is neither, or the configuration is not a RagConfig.
    """
    if config is None:
        if question_encoder is None or generator is None:
            raise ConfigurationError("Give a RagConfig, or both a question_encoder and a generator.")
        return RagConfig.from_question_encoder_generator_configs(
            question_encoder.config, generator.config, **kwargs
        )
    if getattr(config, "model_type", None) != RagConfig.model_type:
        raise ConfigurationError(f"config is a {type(config).__name__}; give a RagConfig.")
    return config


def load_parts(
    names: Mapping[str, Any], kwargs: dict[str, Any], load: Callable[[str, str, dict[str, Any]], Any]
) -> dict[str, Any]:
    """Load the two networks of a RAG model and make their configuration.

    Args:
        names: Name or folder of "question_encoder" and of "generator"; None if ``kwargs`` contains the model.
        kwargs: Arguments of ``from_pretrained_question_encoder_generator``.
        load: Loads a network from its part's name, its own name and its arguments.

    Returns:
        ``question_encoder``, ``generator`` and ``config``, as a model's constructor takes them.

    Raises:
        ConfigurationError: A part has neither a name nor a model.
    """
    parts = {}
    for part, name in names.items():
        arguments = pop_prefixed(kwargs, f"{part}_", except_for=RagConfig.__annotations__)
        refuse_code(arguments)
        network = arguments.pop("model", None)
        if network is None:
            if name is None:
                raise ConfigurationError(
                    f"Give {part}_pretrained_model_name_or_path, or a model as {part}_model."
                )
            network = load(part, name, arguments)
        parts[part] = network
    config = kwargs.pop("config", None)
    return {**parts, "config": resolve_config(config, **parts, **({} if config is not None else kwargs))}


@dataclass(frozen=True)
class SpecialTokens:
    """The generator's special tokens, from RagConfig where it defines them, else from its generator.

    Attributes:
        pad: The pad token; ``None`` if the generator has none.
        bos: The beginning-of-sequence token.
        ends: All tokens that end an answer.
        pad_or_eos: The token that pads sequences: the pad token, else the end-of-sequence token, else 0.
        decoder_start: The first token of the decoder; a placeholder for causal generators.
    """

    pad: int | None
    bos: int | None
    ends: list[int]
    pad_or_eos: int
    decoder_start: int

    @classmethod
    def from_config(cls, config: RagConfig) -> Self:
        """Read the special tokens of a configuration."""

        def ids(name: str) -> list[int]:
            return as_list(getattr(config, name)) or as_list(getattr(config.generator, name, None))

        pad, bos, ends = ids("pad_token_id"), ids("bos_token_id"), ids("eos_token_id")
        pad_or_eos = (pad or ends or [0])[0]
        start = (ids("decoder_start_token_id") or bos or pad or [pad_or_eos])[0]
        return cls(next(iter(pad), None), next(iter(bos), None), ends, pad_or_eos, start)

    @property
    def eos(self) -> int | None:
        """The end-of-sequence token (the first, if there are several)."""
        return next(iter(self.ends), None)


def as_list(tokens: int | Sequence[int] | None) -> list[int]:
    """Token ids as a list, whichever way a configuration writes them."""
    if tokens is None:
        return []
    return [tokens] if isinstance(tokens, int) else [int(token) for token in tokens]


class RagParts:
    """Base of `RagModel` and `TFRagModel`: access to their parts, and the choice of contexts."""

    config: RagConfig
    question_encoder: Any
    generator: Any
    retriever: RetrieverProtocol | None
    # Both depend on the framework.
    retrieve: Callable[..., RetrievedContexts]
    _checked_contexts: Callable[[Any, Any, Any, int | None], RetrievedContexts]

    def set_retriever(self, retriever: RetrieverProtocol) -> None:
        """Set the retriever that the model calls."""
        self.retriever = retriever

    @property
    def special_tokens(self) -> SpecialTokens:
        """The generator's special tokens, as the configuration defines them."""
        return SpecialTokens.from_config(self.config)

    @property
    def question_pooling(self) -> Pooling:
        """How the question encoder's states become one vector."""
        if self.config.question_encoder_pooling is not None:
            return self.config.question_encoder_pooling
        return "pooler" if self.question_encoder.config.model_type == "dpr" else "cls"

    def prepare_contexts(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        context_input_ids: Any = None,
        context_attention_mask: Any = None,
        doc_scores: Any = None,
        n_docs: int | None = None,
        question_strings: Sequence[str] | None = None,
        **flags: bool | None,
    ) -> RetrievedContexts:
        """The caller's contexts, or retrieved ones if there are none. Arguments as for `RagModel.forward`.

        Raises:
            MissingContextError: Contexts are incomplete, or there are neither contexts nor a retriever and question.
            ShapeError: The contexts, their mask and their scores disagree.
        """
        if context_input_ids is None and self.retriever is not None and input_ids is not None:
            return self.retrieve(
                input_ids, attention_mask, n_docs=n_docs, question_strings=question_strings, **flags
            )
        if context_input_ids is None or context_attention_mask is None or doc_scores is None:
            raise missing_contexts(
                context_input_ids=context_input_ids,
                context_attention_mask=context_attention_mask,
                doc_scores=doc_scores,
            )
        return self._checked_contexts(context_input_ids, context_attention_mask, doc_scores, n_docs)


class RagWrapper:
    """Base of the models for generation, which wrap a `RagParts` in ``rag``."""

    config: RagConfig
    generation_config: GenerationConfig
    rag: Any

    # Public names of transformers' RAG classes.
    retriever = property(attrgetter("rag.retriever"), doc="The retriever that the model calls.")
    question_encoder = property(attrgetter("rag.question_encoder"), doc="The question encoder.")
    generator = property(attrgetter("rag.generator"), doc="The generator.")

    def set_retriever(self, retriever: RetrieverProtocol) -> None:
        """Set the retriever that the model calls."""
        self.rag.set_retriever(retriever)

    def _merged_generation_config(
        self, config: GenerationConfig | None, *defaults: GenerationConfig
    ) -> GenerationConfig:
        """A new configuration of the caller's values, then this model's, then its networks', then the defaults'."""
        merged, special = copy.deepcopy(self.generation_config), self.rag.special_tokens
        tokens = {
            "decoder_start_token_id": special.decoder_start,
            "bos_token_id": special.bos,
            "eos_token_id": self.config.eos_token_id or getattr(self.config.generator, "eos_token_id", None),
            "pad_token_id": special.pad_or_eos,
        }
        for values in (tokens, *(default.to_dict() for default in defaults)):
            merged.update(**values, defaults_only=True)
        if config is not None:
            merged.update(**{name: value for name, value in config.to_dict().items() if value is not None})
        return merged


# --- Arguments of a call: defaults and checks ---


def resolve_flag(value: bool | None, default: bool) -> bool:
    """The caller's value, or the configuration's if there is none."""
    return bool(default if value is None else value)


def warn_unknown(arguments: dict[str, Any]) -> None:
    """Warn of arguments of ``forward`` that have no effect; transformers silently ignores them.

    Warns:
        UserWarning: There is one; the message names it.
    """
    unknown = [name for name in arguments if name != "token_type_ids"]  # tokenizers return these by default
    if unknown:
        warnings.warn(
            f"forward() ignores unknown argument(s): {', '.join(unknown)}.", UserWarning, stacklevel=3
        )


def pop_prefixed(kwargs: dict[str, Any], prefix: str, *, except_for: Any) -> dict[str, Any]:
    """Move the arguments with a prefix out of ``kwargs``, except for fields of RagConfig with that prefix."""
    names = [name for name in kwargs if name.startswith(prefix) and name not in except_for]
    return {name.removeprefix(prefix): kwargs.pop(name) for name in names}


def missing_contexts(**arguments: Any) -> MissingContextError:
    """The error for a call without contexts to a model without a retriever; it names the arguments that are None."""
    missing = [name for name, value in arguments.items() if value is None]
    return MissingContextError(
        f"{' and '.join(missing)} not given: pass context_input_ids, context_attention_mask and doc_scores "
        "together, or give input_ids and set a retriever with set_retriever(...)."
    )


def check_contexts(input_ids: Any, attention_mask: Any, doc_scores: Any, n_docs: int | None) -> None:
    """Check that contexts, (B*K, S), their mask and their scores, (B, K), agree.

    Raises:
        ShapeError: They do not.
    """
    if len(input_ids.shape) != 2:
        raise ShapeError(f"context_input_ids has shape {tuple(input_ids.shape)}; expected (B*K, S).")
    if None in (*input_ids.shape, *doc_scores.shape):  # sizes that a TensorFlow graph does not know yet
        return
    check_n_docs(n_docs, doc_scores, input_ids.shape[0])
    check_mask(attention_mask, *input_ids.shape)


def check_n_docs(n_docs: int | None, doc_scores: Any, rows: int | None) -> None:
    """Check that the caller's K, passage scores, (B, K), and the number of contexts, B*K, agree.

    Raises:
        ShapeError: They do not.
    """
    shape = tuple(doc_scores.shape)
    if len(shape) != 2 or not shape[1]:
        raise ShapeError(f"doc_scores has shape {shape}; expected (B, K).")
    questions, k = shape
    if n_docs is not None and n_docs != k:
        raise ShapeError(f"doc_scores has shape {shape}, but n_docs={n_docs}: expected (B, {n_docs}).")
    if rows is None:
        return
    if rows % k:
        raise ShapeError(f"context_input_ids has {rows} rows; expected a multiple of n_docs={k}.")
    if rows != questions * k:
        raise ShapeError(
            f"context_input_ids has {rows} rows, but doc_scores has shape {shape}: expected {questions * k} "
            "rows (B*K)."
        )


def check_mask(context_attention_mask: Any, rows: int, columns: int | None) -> None:
    """Check that the mask has the shape of the contexts.

    Raises:
        ShapeError: The shapes differ.
    """
    expected = (rows, columns if columns is not None else context_attention_mask.shape[-1])
    if tuple(context_attention_mask.shape) != expected:
        raise ShapeError(
            f"context_attention_mask has shape {tuple(context_attention_mask.shape)}; expected {expected}, "
            "the shape of context_input_ids."
        )


def check_scores(doc_scores: Any) -> None:
    """Check that every question has a passage.

    Args:
        doc_scores: Passage scores, (B, K), of torch or numpy.

    Raises:
        ShapeError: A row consists of -inf only.
    """
    has_passage = (doc_scores != float("-inf")).any(1).tolist()
    if not all(has_passage):
        raise ShapeError(
            f"doc_scores is -inf for all passages of question {has_passage.index(False)}; expected at least "
            "one passage."
        )


def check_decoder_rows(tokens: Any, doc_scores: Any, name: str) -> None:
    """Check that decoder input, (B*R, T), has R rows for each of B questions.

    Raises:
        ShapeError: The number of rows is not a multiple of B.
    """
    rows, questions = tokens.shape[0], doc_scores.shape[0]
    if None not in (rows, questions) and rows % questions:
        raise ShapeError(f"{name} has {rows} rows, but there are {questions} questions; expected B rows.")


def longest_context(context_attention_mask: Any) -> int:
    """One more than the last column in which any row of a mask, (B*K, S), has a token; at least 1."""
    used = (context_attention_mask != 0).any(0).tolist()
    return max((column for column, is_used in enumerate(used, start=1) if is_used), default=1)


@dataclass(frozen=True)
class Targets:
    """Input and targets of the decoder, by one of two conventions for labels.

    *Labels alone, seq2seq generator*: the convention of transformers' RAG, with which the facebook/rag-* checkpoints
    were trained. The first label (BART's ``<s>``) is an input only, and the labels are the decoder input: position t
    predicts label t+1.

    *Labels with decoder input, or a causal generator*: the usual convention. Position t predicts label t. The
    decoder input is the labels shifted right, after the start token (``model.shift_tokens_right(labels)``). It also
    applies to a single label column, which would have no target under the first convention.

    Attributes:
        decoder_input_ids: Decoder input, (B, T).
        target_ids: The token that each position predicts, (B, T).
        scored: Which targets count, bool, (B, T).
    """

    decoder_input_ids: Any
    target_ids: Any
    scored: Any


def check_label_shapes(labels: Any, decoder_input_ids: Any) -> None:
    """Check that labels, and the decoder input if there is one, are (B, T).

    Raises:
        ShapeError: They are not.
    """
    if len(labels.shape) != 2 or labels.shape[1] == 0:
        raise ShapeError(f"labels has shape {tuple(labels.shape)}; expected (B, T).")
    if decoder_input_ids is not None and tuple(decoder_input_ids.shape) != tuple(labels.shape):
        raise ShapeError(
            f"decoder_input_ids has shape {tuple(decoder_input_ids.shape)}; expected {tuple(labels.shape)}, "
            "the shape of labels."
        )


def check_labels(labels: Any, vocabulary: int) -> None:
    """Check that labels, of torch or numpy, are token ids of the generator, or -100.

    Raises:
        ShapeError: One of them is neither; the message names it.
    """
    wrong = (labels >= vocabulary) | ((labels < 0) & (labels != IGNORE_INDEX))
    if wrong.any():
        raise ShapeError(
            f"labels holds {int(labels[wrong][0])}; expected token ids from 0 to {vocabulary - 1}, or -100 for "
            "tokens that are not scored."
        )


def check_label_rows(labels: Any, questions: Any) -> None:
    """Check that there is one row of labels for every row of ``questions`` (their scores or their tokens).

    Raises:
        ShapeError: There is not.
    """
    if questions is None or len(questions.shape) != 2 or None in (labels.shape[0], questions.shape[0]):
        return
    if labels.shape[0] != questions.shape[0]:
        raise ShapeError(
            f"labels has {labels.shape[0]} rows, but there are {questions.shape[0]} questions; "
            "expected one row of labels for every question."
        )
