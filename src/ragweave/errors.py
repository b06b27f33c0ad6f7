"""What can go wrong in a way the caller can mend: every message says what to do next."""

from __future__ import annotations


class RagweaveError(Exception):
    """Base of every error that ragweave raises on purpose."""


class ConfigurationError(RagweaveError, ValueError):
    """An argument or a configuration field has a value that cannot work."""


class ShapeError(RagweaveError, ValueError):
    """A tensor's shape disagrees with the others; the message names the argument and both shapes."""


class MissingContextError(RagweaveError, ValueError):
    """The model was asked to read passages, but has neither a retriever nor contexts from the caller."""


class IndexDataError(RagweaveError, ValueError):
    """An index or its passages are missing, empty, damaged or of another dimension."""


class QuestionError(RagweaveError, ValueError):
    """A question cannot be answered as it stands: empty, or longer than the encoder reads."""


class SourceError(RagweaveError):
    """A document source is missing, empty or unreadable."""


class SourceWarning(UserWarning):
    """A document source was skipped, and nothing else was to be done."""


class DataError(RagweaveError, ValueError):
    """Questions, gold answers or predictions are missing, damaged, or of another form than expected."""


class TrainingError(RagweaveError):
    """A training run cannot go on: its loss is no number, a checkpoint cannot be written, its data is another."""


class KnowledgeBaseError(RagweaveError):
    """A folder is not a knowledge base, is damaged, or cannot be written."""


class EncoderMismatchError(KnowledgeBaseError):
    """A knowledge base was opened with another encoder than the one that embedded its passages."""


class ModelNotFoundError(RagweaveError):
    """A model could not be found under the name or path given."""


class MissingExtraError(RagweaveError, ImportError):
    """An optional dependency is not installed; the message names the pip extra that brings it."""


def require_extra(module: str, extra: str) -> None:
    """Check that an optional dependency can be imported, without importing it.

    Args:
        module: The module's import name, such as ``"peft"``.
        extra: The extra of ragweave that brings it, such as ``"embedded"``.

    Raises:
        MissingExtraError: The module is not installed.
    """
    from importlib.util import find_spec

    if find_spec(module) is None:
        raise MissingExtraError(
            f"This needs the package '{module}', which is not installed: run pip install 'ragweave[{extra}]'."
        )
