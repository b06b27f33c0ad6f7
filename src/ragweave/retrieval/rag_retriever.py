"""RagRetriever: transformers' interface of the retriever, from question vectors to the generator's contexts.

Notation used for tensor shapes: B questions, K passages per question, S tokens, D vector size.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from transformers import BatchEncoding

import ragweave  # for names that are loaded on first use
from ragweave.configuration import RagConfig
from ragweave.errors import ConfigurationError, QuestionError
from ragweave.retrieval.context_template import ContextTemplate, context_tokens, padded, question_tokens
from ragweave.retrieval.index_protocol import Index
from ragweave.retrieval.retriever import RetrievalResult, Retriever

if TYPE_CHECKING:
    from datasets import Dataset

HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "revision", "token")


class RagRetriever:
    """Retrieves passages for question vectors and makes the generator's contexts from them.

    Args:
        config: The model's configuration; it names the index to open if ``index`` is not given.
        question_encoder_tokenizer: Tokenizer of the questions.
        generator_tokenizer: The generator's tokenizer.
        index: Any object with the methods of `Index`.
        init_retrieval: Whether to load the index now instead of at the first search.

    Raises:
        IndexDataError: The index that the configuration names cannot be opened.

    Example:
        ```python
        retriever = RagRetriever.from_pretrained("facebook/rag-token-nq", indexed_dataset=dataset)
        model = RagTokenForGeneration.from_pretrained("facebook/rag-token-nq", retriever=retriever)
        ```
    """

    def __init__(
        self,
        config: RagConfig,
        question_encoder_tokenizer: Any,
        generator_tokenizer: Any,
        index: Index | None = None,
        init_retrieval: bool = True,
    ) -> None:
        self.config = config
        self.question_encoder_tokenizer = question_encoder_tokenizer
        self.generator_tokenizer = generator_tokenizer
        self.ctx_encoder_tokenizer: Any = None
        self.return_tokenized_docs = False
        self.n_docs: int = config.n_docs
        self.batch_size: int = config.retrieval_batch_size
        self.index: Index = index if index is not None else self._build_index(config)
        if init_retrieval:
            self.init_retrieval()

    @classmethod
    def from_pretrained(
        cls,
        retriever_name_or_path: str | PathLike[str],
        indexed_dataset: Dataset | None = None,
        *,
        config: RagConfig | None = None,
        index: Index | None = None,
        **kwargs: Any,
    ) -> Self:
        """Load a retriever from a RAG model's folder or hub name.

        Args:
            retriever_name_or_path: Folder or name with the configuration and both tokenizers.
            indexed_dataset: Passages with a FAISS index, used instead of the configuration's.
            config: Configuration to use instead of the saved one.
            index: Any index, used instead of the configuration's.
            **kwargs: Fields of RagConfig to change, such as ``index_name`` and ``passages_path``; options of
                the hub, such as ``revision``.

        Raises:
            IndexDataError: The index cannot be opened.
        """
        if config is None:
            config = RagConfig.from_pretrained(retriever_name_or_path, **kwargs)
        _resolve_paths(config, Path(retriever_name_or_path), except_for=kwargs)
        hub_options = {name: kwargs[name] for name in HUB_OPTIONS if name in kwargs}
        tokenizer = ragweave.RagTokenizer.from_pretrained(
            retriever_name_or_path, config=config, **hub_options
        )
        if indexed_dataset is not None:
            config.index_name = "custom"
            index = build_index(config, indexed_dataset)
        return cls(config, tokenizer.question_encoder, tokenizer.generator, index=index)

    def save_pretrained(self, save_directory: str | PathLike[str], *, copy_index: bool = False) -> None:
        """Save configuration and tokenizers, and the passages and vectors of a data set index.

        An index that was opened from files is not copied, since it may be of any size: the saved configuration names
        its files, relative to the folder if they are inside. All files are written to a staging folder first: a
        failure leaves an earlier save unchanged, and a retriever may be saved into the folder that it was loaded
        from.

        Args:
            save_directory: The folder.
            copy_index: Whether to copy the files of the index, so that the folder holds everything and can be moved.

        Raises:
            ConfigurationError: The path is a file.
        """
        folder = Path(save_directory)
        if folder.is_file():
            raise ConfigurationError(f"{folder} is a file; give a folder to save the retriever in.")
        folder.mkdir(parents=True, exist_ok=True)
        config = copy.deepcopy(self.config)
        with TemporaryDirectory(prefix=".saving-", dir=folder) as staging_name:
            staging = Path(staging_name)
            if hasattr(self.index, "save_index_files"):
                for name, value in self.index.save_index_files(staging, copy=copy_index).items():
                    path = Path(value)
                    inside = name.endswith("_path") and path.is_relative_to(folder.absolute())
                    setattr(config, name, str(path.relative_to(folder.absolute())) if inside else value)
            config.completed_from(folder).save_pretrained(staging)
            ragweave.RagTokenizer(self.question_encoder_tokenizer, self.generator_tokenizer).save_pretrained(
                staging
            )
            _move(staging, folder)

    def init_retrieval(self) -> None:
        """Load the index unless it is loaded."""
        if not self.index.is_initialized():
            self.index.init_index()

    def set_ctx_encoder_tokenizer(self, ctx_encoder_tokenizer: Any) -> None:
        """Also return tokenised passages, for training the context encoder."""
        self.ctx_encoder_tokenizer = ctx_encoder_tokenizer
        self.return_tokenized_docs = True

    def retrieve(
        self, question_hidden_states: NDArray[np.float32], n_docs: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], list[dict[str, Any]]]:
        """Retrieve K passages for each of B questions, (B, D), ``retrieval_batch_size`` questions at a time.

        Returns:
            Passage vectors, (B, K, D); their row numbers, (B, K), -1 for missing passages; and B dictionaries of
            lists with their titles, texts and vectors ("embeddings").

        Raises:
            ConfigurationError: ``n_docs`` is below 1.
            IndexDataError: The index cannot be searched with these vectors.
            QuestionError: There is no question.
        """
        rows, vectors = self._main_retrieve(question_hidden_states, n_docs)
        docs = getattr(self.index, "get_texts", self.index.get_doc_dicts)(rows)
        return vectors, rows, [{**doc, "embeddings": each} for doc, each in zip(docs, vectors, strict=True)]

    @staticmethod
    def _build_index(config: RagConfig) -> Index:
        """Open the index that the configuration names; a subclass may open another."""
        return build_index(config)

    def _chunk_tensor(self, t: Any, chunk_size: int) -> list[Any]:
        """Split questions into chunks to search together."""
        return [t[start : start + chunk_size] for start in range(0, len(t), chunk_size)]

    def _main_retrieve(
        self, question_hidden_states: NDArray[np.float32], n_docs: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Search the index: rows, (B, K), and vectors, (B, K, D). Distributed retrievers call or override it."""
        chunks = self._chunk_tensor(question_hidden_states, self.batch_size) or [question_hidden_states]
        results = [self.search(chunk, n_docs) for chunk in chunks]
        return (
            np.concatenate([result.rows for result in results]),
            np.concatenate([result.passage_vectors for result in results]),
        )

    def search(
        self,
        question_hidden_states: NDArray[np.float32],
        n_docs: int,
        *,
        question_strings: Sequence[str] | None = None,
    ) -> RetrievalResult:
        """Retrieve as `retrieve` does, with the parts of the scores and, for an index of words, with the questions.

        Raises:
            ConfigurationError: ``n_docs`` is below 1, or the index needs the questions and they are missing.
            IndexDataError: The index cannot be searched with these vectors.
            QuestionError: There is no question.
        """
        if not len(question_hidden_states):
            raise QuestionError("There is no question; ask at least one.")
        if not self.index.is_initialized():  # an override of init_retrieval may need arguments
            self.index.init_index()
        retriever = Retriever(
            self.index, doc_score_scale=self.config.doc_score_scale, batch_size=self.batch_size
        )
        return retriever.retrieve(question_strings, n_docs, vectors=question_hidden_states)

    def postprocess_docs(
        self,
        docs: Sequence[dict[str, Any]],
        input_strings: Sequence[str],
        prefix: str | None,
        n_docs: int,
        return_tensors: str | None = None,
        *,
        padding: bool | Literal["longest", "max_length"] = "max_length",
        max_length: int | None = None,
    ) -> tuple[Any, Any]:
        """Make the generator's contexts.

        Args:
            docs: B dictionaries of lists of K titles and texts.
            input_strings: B questions.
            prefix: Text before every context; by default the configuration's, or its generator's.
            n_docs: K.
            return_tensors: "pt", "np" or none for lists.
            padding: "max_length" pads to ``max_length``, "longest" or true to the longest context; false does not.
            max_length: Maximum number of tokens of a context; by default ``max_combined_length``.

        Returns:
            Token ids and attention mask, (B*K, S).

        Raises:
            ConfigurationError: ``padding`` is unknown.
            QuestionError: A question alone is longer than ``max_length``.
        """
        if padding not in (True, False, "longest", "max_length"):
            raise ConfigurationError(
                f"padding is {padding!r}; choose 'max_length', 'longest', True or False."
            )
        config, tokenizer = self.config, self.generator_tokenizer
        max_length = max_length or config.max_combined_length
        rows = context_tokens(
            self.context_template(prefix),
            _passages(docs, n_docs),
            [question for question in input_strings for _ in range(n_docs)],
            tokenizer,
            max_length,
            causal=getattr(config, "generator_is_causal", False),
        )
        ids: Any = rows
        mask: Any = [[1] * len(row) for row in rows]
        if padding is not False:
            length = max_length if padding == "max_length" else max(map(len, rows))
            pad_token = tokenizer.pad_token_id
            if pad_token is None:  # the mask hides padding from the model, so any token will do
                pad_token = tokenizer.eos_token_id or 0
            ids, mask = padded(rows, length, side=tokenizer.padding_side, pad_token=pad_token)
            if return_tensors is not None:  # BatchEncoding is slow with lists
                ids, mask = np.array(ids), np.array(mask)
        encoded = BatchEncoding({"input_ids": ids, "attention_mask": mask}, tensor_type=return_tensors)
        return encoded["input_ids"], encoded["attention_mask"]

    def passage_lengths(
        self, context_input_ids: Any, context_attention_mask: Any, input_strings: Sequence[str]
    ) -> list[int]:
        """The number of tokens before the question in each context of a causal generator, B*K numbers.

        Contexts and their mask, (B*K, S), are those of `postprocess_docs`. The number is 0 where a context does not
        end as `postprocess_docs` ends it.
        """
        template, tokenizer = self.context_template(), self.generator_tokenizer
        n_docs = len(context_input_ids) // len(input_strings)
        tails = question_tokens(template, input_strings, tokenizer)
        lengths = []
        for number, (row, mask) in enumerate(zip(context_input_ids, context_attention_mask, strict=True)):
            ids, tail = row[mask != 0].tolist(), tails[number // n_docs]
            lengths.append(len(ids) - len(tail) if ids[-len(tail) :] == tail else 0)
        return lengths

    def context_template(self, prefix: str | None = None) -> ContextTemplate:
        """How contexts are filled, with the configuration's prefix by default."""
        config = self.config
        if prefix is None:
            prefix = config.prefix or getattr(config.generator, "prefix", None) or ""
        return ContextTemplate(
            prefix=prefix,
            title_sep=config.title_sep,
            doc_sep=config.doc_sep,
            answer_sep=getattr(config, "answer_sep", ""),
        )

    def __call__(
        self,
        question_input_ids: Any,
        question_hidden_states: NDArray[np.float32],
        prefix: str | None = None,
        n_docs: int | None = None,
        return_tensors: str | None = None,
        *,
        question_strings: Sequence[str] | None = None,
        padding: bool | Literal["longest", "max_length"] = "max_length",
    ) -> BatchEncoding:
        """Retrieve passages for B questions and make contexts from them.

        Args:
            question_input_ids: Question tokens, (B, S); decoded unless ``question_strings`` are given.
            question_hidden_states: Question vectors, (B, D).
            prefix: Text before every context.
            n_docs: K; ``config.n_docs`` by default.
            return_tensors: "pt", "np" or none for lists.
            question_strings: The questions as the user wrote them.
            padding: As for `postprocess_docs`.

        Returns:
            ``context_input_ids`` and ``context_attention_mask``, (B*K, S); ``retrieved_doc_embeds``,
            (B, K, D); ``doc_ids``, (B, K), -1 for a missing passage; ``doc_score_weights`` and
            ``doc_score_offsets``, (B, K), if scores are more than inner products (see `Hits`); and
            ``tokenized_doc_ids`` and ``tokenized_doc_attention_mask`` with a context encoder's tokenizer.

        Raises:
            ConfigurationError: ``n_docs`` is below 1, or ``padding`` unknown.
            IndexDataError: The index cannot be searched with these vectors.
            QuestionError: There is no question, or one is longer than ``max_combined_length``.
        """
        n_docs = n_docs if n_docs is not None else self.n_docs
        if question_strings is None:
            if question_input_ids is None:
                raise QuestionError("Give the questions, as question_input_ids or as question_strings.")
            question_strings = self.question_encoder_tokenizer.batch_decode(
                question_input_ids, skip_special_tokens=True
            )
        if len(question_strings) != len(question_hidden_states):
            raise QuestionError(
                f"There are {len(question_strings)} questions, but {len(question_hidden_states)} question "
                "vectors; expected one for each."
            )
        question_vectors = np.asarray(question_hidden_states)
        score_parts: dict[str, Any] = {}
        if self._overrides("retrieve", "_main_retrieve"):
            passage_vectors, rows, docs = self.retrieve(question_vectors, n_docs)
        else:
            hits = self.search(question_vectors, n_docs, question_strings=question_strings)
            passage_vectors, rows, docs = hits.passage_vectors, hits.rows, hits.docs
            parts = {"doc_score_weights": hits.weights, "doc_score_offsets": hits.offsets}
            score_parts = {name: part for name, part in parts.items() if part is not None}
        # A subclass with transformers' signature has no argument ``padding``.
        padding_option: dict[str, Any] = {} if padding == "max_length" else {"padding": padding}
        context_input_ids, context_attention_mask = self.postprocess_docs(
            docs, question_strings, prefix, n_docs, return_tensors=return_tensors, **padding_option
        )
        result = {
            "context_input_ids": context_input_ids,
            "context_attention_mask": context_attention_mask,
            "retrieved_doc_embeds": passage_vectors,
            "doc_ids": rows,
            **score_parts,
        }
        if self.return_tokenized_docs:
            tokenized = self.ctx_encoder_tokenizer(
                *map(list, zip(*_passages(docs, n_docs), strict=True)),
                truncation=True,
                padding="longest",
                return_tensors=return_tensors,
            )
            result["tokenized_doc_ids"] = tokenized["input_ids"]
            result["tokenized_doc_attention_mask"] = tokenized["attention_mask"]
        return BatchEncoding(result, tensor_type=return_tensors)

    def _overrides(self, *names: str) -> bool:
        """Whether a subclass, or the instance, overrides any of these methods."""
        methods = ((getattr(self, name), getattr(RagRetriever, name)) for name in names)
        return any(getattr(method, "__func__", None) is not ours for method, ours in methods)


def build_index(config: RagConfig, indexed_dataset: Dataset | None = None) -> Index:
    """Open the index that a configuration names, or the index of a data set.

    Raises:
        IndexDataError: It cannot be opened.
    """
    # The datasets library takes a second to import, and a knowledge base does not need it.
    from ragweave.retrieval.canonical import CanonicalHFIndex
    from ragweave.retrieval.dataset import DatasetIndex
    from ragweave.retrieval.legacy import LegacyIndex

    size = config.retrieval_vector_size
    if indexed_dataset is not None:
        return DatasetIndex(size, indexed_dataset)
    if config.index_name == "custom":
        return DatasetIndex.load_from_disk(size, config.passages_path, config.index_path)
    if config.index_name == "legacy":
        return LegacyIndex(size, config.index_path, config.passages_path)
    return CanonicalHFIndex(
        size,
        dataset_name=config.dataset,
        dataset_split=config.dataset_split,
        index_name=config.index_name,
        index_path=config.index_path,
        use_dummy_dataset=config.use_dummy_dataset,
        dataset_revision=config.dataset_revision,
    )


def _passages(docs: Sequence[dict[str, Any]], n_docs: int) -> list[tuple[str, str]]:
    """(title, text) of B*K passages; a data set may hold null for either."""
    return [(doc["title"][k] or "", doc["text"][k] or "") for doc in docs for k in range(n_docs)]


def _resolve_paths(config: RagConfig, folder: Path, except_for: Collection[str]) -> None:
    """Resolve the paths of a saved configuration, except those that the caller gave.

    ragweave saves paths relative to the folder. transformers saves them absolute, or relative to its working
    directory; such a file is looked for there, and by its name in the folder, which may have been moved.
    """
    for name in ("passages_path", "index_path"):
        value = getattr(config, name)
        if value is not None and name not in except_for:
            candidates = (folder / value, Path(value), folder / Path(value).name)
            setattr(config, name, next((str(path) for path in candidates if path.exists()), value))


def _move(staging: Path, folder: Path) -> None:
    """Move the contents of one folder into another, replacing entries of the same name."""
    replaced = staging / ".replaced"
    replaced.mkdir()
    for new in sorted(path for path in staging.iterdir() if path != replaced):
        old = folder / new.name
        if old.is_dir() or (new.is_dir() and old.exists()):  # a folder cannot be replaced in one step
            old.rename(replaced / new.name)
        new.replace(old)
