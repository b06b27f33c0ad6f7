"""RagConfig: the configuration of a RAG model."""

import copy
import json
from functools import cache
from os import PathLike, fspath
from pathlib import Path
from typing import Any, ClassVar, Self, get_args, get_origin

from huggingface_hub.dataclasses import type_validator
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

from ragweave.errors import ConfigurationError
from ragweave.model_files import check_config
from ragweave.types import DEFAULT_DENSE_WEIGHT, POOLINGS, Pooling, RetrievalKind

INDEX_NAMES = ("exact", "compressed", "legacy", "custom", "wiki_dpr")
_INDEX_FIELDS = ("index_name", "passages_path", "index_path")


class RagConfig(PreTrainedConfig):
    r"""Configuration of a RAG model: its two networks, its retriever, and how they are combined.

    The names, the defaults and the saved ``config.json`` are those of transformers' RagConfig, so a folder saved by
    either library loads in the other. Fields marked "ragweave only" can be ignored by other libraries.

    Args:
        question_encoder: Configuration (or its dictionary) of the question encoder; DPR by default.
        generator: Configuration (or its dictionary) of the generator, seq2seq or causal; BART by default.
        prefix: Text put before every context.
        title_sep: Text between a passage's title and its text.
        doc_sep: Text between a passage and the question.
        answer_sep: Text after the question. Empty for seq2seq generators; a causal generator needs a cue
            such as ``"\nAnswer:"`` there. (ragweave only)
        n_docs: K, the number of passages retrieved for a question.
        max_combined_length: Longest context in generator tokens; longer passages are truncated, questions never.
        retrieval_vector_size: D, the dimension of question and passage vectors.
        retrieval_batch_size: Number of questions sent to the index at once.
        dataset: Name or local folder of the data set behind ``index_name`` "exact" and "compressed".
        dataset_split: Split of that data set.
        dataset_revision: Revision of that data set on the hub.
        index_name: One of "exact", "compressed", "legacy" and "custom"; "wiki_dpr" means "compressed".
        index_path: Path of the serialised FAISS index.
        passages_path: Path of the passages that belong to the index.
        use_dummy_dataset: Use the small dummy version of the data set.
        label_smoothing: Epsilon of label smoothing in the loss.
        do_marginalize: Return logits that are marginalised over the passages (RAG-Token).
        reduce_loss: Sum the loss over the batch.
        do_deduplication: Merge equal hypotheses of different passages before scoring (RAG-Sequence).
        exclude_bos_score: Leave the first target token out of the score if it is the BOS token.
        output_retrieved: Return the retrieved passages' ids, vectors and contexts.
        use_cache: Keep keys and values between decoding steps.
        forced_eos_token_id: Token that ends every answer of ``max_length`` tokens; the generator's by default. Like
            other settings of decoding, it moves into the model's generation configuration.
        doc_score_scale: Factor on the inner products before their softmax. 1.0 gives the paper's p(z|x). Vectors of
            length one give scores in [-1, 1] and an almost flat softmax: choose 20 to 50 on development data.
            (ragweave only)
        question_encoder_pooling: "pooler" (the encoder's pooler output), "cls" or "mean"; ``None`` means "pooler" for
            DPR and "cls" for other encoders. (ragweave only)
        question_encoder_normalize: Scale question vectors to length one. (ragweave only)
        question_encoder_dim: How many dimensions of question vectors to keep; ``None`` keeps all, or as many as the
            encoder of the knowledge base that `RagPipeline.from_pretrained` opens. (ragweave only)
        question_encoder_prompt: Text that `RagPipeline` and training put before questions for the question encoder;
            ``None`` for the prompt of the knowledge base's encoder. (ragweave only)
        retrieval: How `RagPipeline.from_pretrained` searches a knowledge base by default: "dense" (by vectors, as in
            the paper), "bm25" (by words) or "hybrid". (ragweave only)
        dense_weight: Weight of vectors against words in "hybrid", from 0 to 1. (ragweave only)
        extractive: Whether a `RagPipeline` answers with spans of a passage by default. It has no effect on
            `generate`. (ragweave only)
        fixed_answers: Answers that extractive decoding allows besides words of the passages, such as "yes" and "no".
            (ragweave only)
        answer_joins: Texts allowed between two spans in an extractive answer, such as "," and " and"; none by
            default. (ragweave only)
        rewrite_prefix: Text before a conversation that the generator was trained to rewrite as a standalone
            question; ``None`` if it was not. (ragweave only)
        rewrite_end: Text after the follow-up question there, for a generator that writes the question in its own
            words; ``None`` for one that copies words. (ragweave only)
        null_answer: The generator's answer if a passage does not answer the question; "" is the empty answer, an end
            token alone. ``None`` if it has not learned one. (ragweave only)
        passage_encoder_fingerprint: Fingerprint of the encoder that embedded the passages in training
            (`TextEncoder.fingerprint`). `RagPipeline.from_pretrained` rejects knowledge bases of other encoders;
            ``None`` accepts all whose vectors have the right size. (ragweave only)

    Raises:
        ConfigurationError: A value has the wrong type, or is not allowed; the message says what is.
    """

    model_type: ClassVar[str] = "rag"
    sub_configs: ClassVar[dict[str, Any]] = {"question_encoder": AutoConfig, "generator": AutoConfig}

    question_encoder: PreTrainedConfig | dict[str, Any] | None = None
    generator: PreTrainedConfig | dict[str, Any] | None = None
    vocab_size: int | None = None
    is_encoder_decoder: bool = True
    prefix: str | None = None
    bos_token_id: int | None = None
    pad_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    decoder_start_token_id: int | None = None
    title_sep: str = " / "
    doc_sep: str = " // "
    answer_sep: str = ""
    n_docs: int = 5
    max_combined_length: int = 300
    retrieval_vector_size: int = 768
    retrieval_batch_size: int = 8
    dataset: str = "wiki_dpr"
    dataset_split: str = "train"
    dataset_revision: str | None = None
    index_name: str = "compressed"
    index_path: str | None = None
    passages_path: str | None = None
    use_dummy_dataset: bool = False
    label_smoothing: float = 0.0
    do_marginalize: bool = False
    reduce_loss: bool = False
    do_deduplication: bool = True
    exclude_bos_score: bool = False
    output_retrieved: bool = False
    use_cache: bool = True
    forced_eos_token_id: int | list[int] | None = None
    doc_score_scale: float = 1.0
    question_encoder_pooling: Pooling | None = None
    question_encoder_normalize: bool = False
    question_encoder_dim: int | None = None
    question_encoder_prompt: str | None = None
    retrieval: str = "dense"
    dense_weight: float = DEFAULT_DENSE_WEIGHT
    extractive: bool = False
    null_answer: str | None = None
    fixed_answers: list[str] | None = None
    answer_joins: list[str] | None = None
    rewrite_prefix: str | None = None
    rewrite_end: str | None = None
    passage_encoder_fingerprint: str | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        self.question_encoder = _sub_config(self.question_encoder, "question_encoder", default="dpr")
        self.generator = _sub_config(self.generator, "generator", default="bart")
        for name in ("dataset", "index_path", "passages_path"):
            if isinstance(getattr(self, name), PathLike):  # config.json holds text
                setattr(self, name, fspath(getattr(self, name)))
        self._check_values()
        super().__post_init__(**kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Make a configuration from a dictionary; keyword arguments are checked as in the constructor.

        Raises:
            ConfigurationError: A value has the wrong type, or is not allowed.
        """
        kwargs = {name: fspath(value) if isinstance(value, Path) else value for name, value in kwargs.items()}
        result = super().from_dict(config_dict, **kwargs)
        (result[0] if isinstance(result, tuple) else result)._check_values()
        return result

    def completed_from(self, folder: str | PathLike[str]) -> Self:
        """Fill the fields that are not set from a configuration that was saved in this folder before.

        A model and its retriever are saved into one folder, in either order. The model's configuration names the
        class of the model, the retriever's names the files of its index.
        """
        try:
            saved = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return self
        if not isinstance(saved, dict) or saved.get("model_type") != self.model_type:
            return self
        completed = copy.deepcopy(self)
        if not completed.architectures:
            completed.architectures = saved.get("architectures")
        paths = [saved.get(name) for name in _INDEX_FIELDS[1:]]
        if not (self.passages_path or self.index_path) and all(
            isinstance(path, str) and (Path(folder) / path).exists() for path in paths
        ):
            for name in _INDEX_FIELDS:
                setattr(completed, name, saved[name])
        return completed

    def save_pretrained(self, save_directory: str | PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Save as ``config.json``, completed from the file that it replaces; see `completed_from`."""
        PreTrainedConfig.save_pretrained(self.completed_from(save_directory), save_directory, *args, **kwargs)

    def _check_values(self) -> None:
        for name, field_type in _field_types().items():
            try:
                type_validator(name, getattr(self, name), field_type)
            except TypeError as error:
                raise ConfigurationError(f"{error}.") from error
        if self.index_name not in INDEX_NAMES:
            raise ConfigurationError(
                f"index_name is {self.index_name!r}; choose one of {_listed(INDEX_NAMES)}."
            )
        if self.question_encoder_pooling is not None and self.question_encoder_pooling not in POOLINGS:
            raise ConfigurationError(
                f"question_encoder_pooling is {self.question_encoder_pooling!r}; "
                f"choose one of {_listed(POOLINGS)}, or None."
            )
        check_config(self)
        for name in ("n_docs", "max_combined_length", "retrieval_vector_size", "retrieval_batch_size"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; it must be 1 or more.")
        if not 0.0 <= self.label_smoothing < 1.0:
            raise ConfigurationError(f"label_smoothing is {self.label_smoothing}; it must lie in [0, 1).")
        if not self.doc_score_scale > 0.0:
            raise ConfigurationError(f"doc_score_scale is {self.doc_score_scale}; it must be above 0.")
        if self.retrieval not in get_args(RetrievalKind):
            raise ConfigurationError(
                f"retrieval is {self.retrieval!r}; choose one of {_listed(get_args(RetrievalKind))}."
            )
        if not 0.0 <= self.dense_weight <= 1.0:
            raise ConfigurationError(f"dense_weight is {self.dense_weight}; it must lie in [0, 1].")

    @property
    def generator_is_causal(self) -> bool:
        """Whether the generator is a decoder-only language model that reads the context as its prompt."""
        return not bool(getattr(self.generator, "is_encoder_decoder", False))

    @classmethod
    def from_question_encoder_generator_configs(
        cls, question_encoder_config: PreTrainedConfig, generator_config: PreTrainedConfig, **kwargs: Any
    ) -> Self:
        """Make a configuration from those of the two networks, and any other fields."""
        return cls(
            question_encoder=question_encoder_config.to_dict(), generator=generator_config.to_dict(), **kwargs
        )


@cache
def _field_types() -> dict[str, Any]:
    """The types of RagConfig's fields, without transformers' fields; an int is valid for a float."""
    checked_elsewhere = ("question_encoder", "generator", "question_encoder_pooling")
    return {
        name: int | float if field_type is float else field_type
        for name, field_type in RagConfig.__annotations__.items()
        if name not in checked_elsewhere and get_origin(field_type) is not ClassVar  # type: ignore[comparison-overlap]
    }


def _sub_config(
    value: PreTrainedConfig | dict[str, Any] | None, name: str, *, default: str
) -> PreTrainedConfig:
    if value is None:
        return CONFIG_MAPPING[default]()
    if not isinstance(value, dict):
        return value
    model_type = value.get("model_type", default)
    if model_type not in CONFIG_MAPPING:
        raise ConfigurationError(
            f"{name} has model_type {model_type!r}, which the installed transformers does not know; "
            "upgrade transformers or choose another model."
        )
    return CONFIG_MAPPING[model_type](**{key: item for key, item in value.items() if key != "model_type"})


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(repr(name) for name in names)
