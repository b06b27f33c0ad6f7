"""Exceptions for what a caller can correct. Every message says what is wrong and what to do.

Some are also AssertionErrors: transformers' RAG classes assert, and code written for them catches that.
"""

from __future__ import annotations

import errno
from importlib.util import find_spec


class RagweaveError(Exception):
    """Base of every error that ragweave raises on purpose."""


class ConfigurationError(RagweaveError, ValueError, AssertionError):
    """An argument or a configuration field has an invalid value."""


class ShapeError(RagweaveError, ValueError, AssertionError):
    """A tensor's shape disagrees with the others; the message names the argument and both shapes."""


class MissingContextError(RagweaveError, ValueError, AssertionError):
    """The model has neither a retriever nor contexts from the caller."""


class IndexDataError(RagweaveError, ValueError):
    """An index or its passages are missing, empty, damaged or of another dimension."""


class DatasetTypeError(IndexDataError, TypeError):
    """The object passed as an indexed data set is something else."""


class QuestionError(RagweaveError, ValueError):
    """A question is empty, or longer than the encoder reads."""


class SourceError(RagweaveError):
    """A document source is missing, empty or unreadable."""


class SourceWarning(UserWarning):
    """A document source was skipped, or a part of it was lost while the rest was kept."""


class OmissionWarning(SourceWarning):
    """A part of a document source that is not text was left out; ``strict`` allows it."""


class StoredStatesWarning(UserWarning):
    """A file of a passage's keys and values is damaged; the passage is encoded again."""


class DataError(RagweaveError, ValueError):
    """Questions, gold answers or predictions are missing, damaged, or in an unexpected format."""


class TrainingError(RagweaveError):
    """A training run cannot continue: its loss is NaN, a checkpoint cannot be written, or its data changed."""


class GeneratorError(RagweaveError):
    """A generator behind a server is unreachable, refuses a request, or answers in an unexpected format."""


class KnowledgeBaseError(RagweaveError):
    """A folder is not a knowledge base, is damaged, or cannot be written."""


class OpenFilesError(KnowledgeBaseError):
    """The process or the system has reached its limit on open files."""


class TruncatedFileError(KnowledgeBaseError):
    """A file of an open knowledge base was cut off in place. Reading it would end the process."""


class EncoderMismatchError(KnowledgeBaseError):
    """A knowledge base was opened with an encoder other than the one that embedded its passages."""


class ModelNotFoundError(RagweaveError):
    """There is no model under this name or path, or it is incomplete."""


class ModelOutputError(RagweaveError, ArithmeticError):
    """A model computes vectors or scores that are NaN or infinite."""


class MissingExtraError(RagweaveError, ImportError):
    """An optional dependency is not installed; the message names the pip extra that installs it."""


def require_extra(module: str, extra: str) -> None:
    """Raise `MissingExtraError`, which names the extra to install, if a module such as ``"peft"`` is missing."""
    if find_spec(module) is None:
        raise MissingExtraError(
            f"This needs the package '{module}', which is not installed: run pip install 'ragweave[{extra}]'."
        )


def too_many_files(error: Exception | None) -> OpenFilesError | None:
    """The error to raise where the limit on open files is reached; ``None`` for other errors."""
    if not isinstance(error, OSError) or error.errno not in (errno.EMFILE, errno.ENFILE):
        return None
    whose, advice = (
        ("This process", "Raise its limit with 'ulimit -n 65536' before you start it")
        if error.errno == errno.EMFILE
        else ("The system", "Close programs, or raise fs.file-max")
    )
    return OpenFilesError(f"{whose} has too many open files. {advice}. No file is damaged.")
