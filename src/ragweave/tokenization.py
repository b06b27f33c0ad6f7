"""RagTokenizer: the question encoder's tokenizer and the generator's, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from os import PathLike
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from ragweave.configuration import RagConfig
from ragweave.errors import ConfigurationError
from ragweave.model_files import refuse_code

QUESTION_ENCODER_FOLDER = "question_encoder_tokenizer"
GENERATOR_FOLDER = "generator_tokenizer"


class RagTokenizer:
    """Tokenizes questions with the question encoder's tokenizer, and answers with the generator's."""

    def __init__(self, question_encoder: Any, generator: Any) -> None:
        self.question_encoder = question_encoder
        self.generator = generator
        self.current_tokenizer = question_encoder

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | PathLike[str],
        *,
        config: RagConfig | None = None,
        **kwargs: Any,
    ) -> RagTokenizer:
        """Load both tokenizers from a RAG model's folder or hub name.

        Args:
            pretrained_model_name_or_path: Folder or name, with subfolders ``question_encoder_tokenizer`` and
                ``generator_tokenizer``.
            config: The model's configuration; read from the same place by default.
            **kwargs: Passed to transformers, such as ``revision`` or ``token``.

        Raises:
            ConfigurationError: An argument asks for code of the model.
        """
        refuse_code(kwargs)
        kwargs["trust_remote_code"] = False  # by default, transformers asks on the terminal
        if config is None:
            config = RagConfig.from_pretrained(pretrained_model_name_or_path, **kwargs)
        question_encoder = AutoTokenizer.from_pretrained(
            pretrained_model_name_or_path,
            config=config.question_encoder,
            subfolder=QUESTION_ENCODER_FOLDER,
            **kwargs,
        )
        generator = AutoTokenizer.from_pretrained(
            pretrained_model_name_or_path, config=config.generator, subfolder=GENERATOR_FOLDER, **kwargs
        )
        return cls(question_encoder=question_encoder, generator=generator)

    def save_pretrained(self, save_directory: str | PathLike[str]) -> None:
        """Save both tokenizers in subfolders of a folder; `ConfigurationError` if the path is a file."""
        folder = Path(save_directory)
        if folder.is_file():
            raise ConfigurationError(f"{folder} is a file; give a folder to save the tokenizers in.")
        folder.mkdir(parents=True, exist_ok=True)
        self.question_encoder.save_pretrained(folder / QUESTION_ENCODER_FOLDER)
        self.generator.save_pretrained(folder / GENERATOR_FOLDER)

    def __call__(self, text: Any = None, *args: Any, text_target: Any = None, **kwargs: Any) -> Any:
        """Tokenize questions for the question encoder, and answers for the generator.

        Args:
            text: Question or questions.
            *args: Passed to the tokenizer.
            text_target: Answer or answers. Without ``text``, their encoding is returned; with ``text``, they become
                the ``labels`` of the questions' encoding.
            **kwargs: Passed to the tokenizer.

        Raises:
            ConfigurationError: Neither is given.
        """
        if text is None and text_target is None:
            raise ConfigurationError("Give text (questions), text_target (answers) or both.")
        if text is None:
            return self.generator(text_target, *args, **kwargs)
        encoding = self.current_tokenizer(text, *args, **kwargs)
        if text_target is not None:
            encoding["labels"] = self.generator(text_target, *args, **kwargs)["input_ids"]
        return encoding

    def prepare_seq2seq_batch(
        self,
        src_texts: str | Sequence[str],
        tgt_texts: str | Sequence[str] | None = None,
        max_length: int | None = None,
        max_target_length: int | None = None,
        padding: str | bool = "longest",
        return_tensors: str | None = None,
        truncation: bool = True,
        **kwargs: Any,
    ) -> Any:
        """Tokenize questions and answers, as the model cards of facebook/rag-* do.

        Args:
            src_texts: Questions.
            tgt_texts: Answers; they become ``labels``.
            max_length: Maximum number of tokens of a question; the tokenizer's own limit by default.
            max_target_length: Maximum number of tokens of an answer; ``max_length`` by default.
            padding: As in the tokenizers of transformers.
            return_tensors: "pt", "np" or none for lists.
            truncation: Whether to truncate longer texts.
            **kwargs: Passed to both tokenizers.
        """
        options = {"padding": padding, "return_tensors": return_tensors, "truncation": truncation, **kwargs}
        encoding = self.question_encoder(src_texts, max_length=max_length, **options)
        if tgt_texts is not None:
            answers = self.generator(tgt_texts, max_length=max_target_length or max_length, **options)
            encoding["labels"] = answers["input_ids"]
        return encoding

    def apply_chat_template(self, *args: Any, **kwargs: Any) -> Any:
        """Format a conversation with the generator's template."""
        return self.generator.apply_chat_template(*args, **kwargs)

    pad_token_id = property(attrgetter("generator.pad_token_id"), doc="The generator's padding token.")
    eos_token_id = property(attrgetter("generator.eos_token_id"), doc="The generator's end token.")
    bos_token_id = property(attrgetter("generator.bos_token_id"), doc="The generator's begin token.")

    def _switch_to_input_mode(self) -> None:
        """Make calls tokenize questions; transformers' name."""
        self.current_tokenizer = self.question_encoder

    def _switch_to_target_mode(self) -> None:
        """Make calls tokenize answers; transformers' name."""
        self.current_tokenizer = self.generator

    def batch_decode(self, sequences: Any, *args: Any, **kwargs: Any) -> list[str]:
        """Decode rows of generated token ids, lists or tensors of any framework, with the generator's tokenizer."""
        return self.generator.batch_decode(_as_lists(sequences), *args, **kwargs)

    def decode(self, token_ids: Any, *args: Any, **kwargs: Any) -> str:
        """Decode one row of generated token ids, a list or a tensor, with the generator's tokenizer."""
        return self.generator.decode(_as_lists(token_ids), *args, **kwargs)


def _as_lists(token_ids: Any) -> Any:
    """Tensors, and lists of them, as lists; the tokenizers of transformers 5 take no tensors of TensorFlow."""
    if hasattr(token_ids, "numpy") and not hasattr(token_ids, "tolist"):  # TensorFlow and Keras
        token_ids = token_ids.numpy()
    if hasattr(token_ids, "tolist"):  # numpy, torch, JAX
        return token_ids.tolist()
    if isinstance(token_ids, (list, tuple)):
        return [_as_lists(row) for row in token_ids]
    return token_ids
