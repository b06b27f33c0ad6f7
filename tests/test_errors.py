"""Every error is a RagweaveError, and a ValueError or ImportError where callers expect one."""

from __future__ import annotations

import inspect
import sys

import pytest

from ragweave import errors

BASES = {
    "ConfigurationError": (errors.RagweaveError, ValueError, AssertionError),
    "DatasetTypeError": (errors.IndexDataError, TypeError),
    "DataError": (errors.RagweaveError, ValueError),
    "EncoderMismatchError": (errors.KnowledgeBaseError,),
    "OpenFilesError": (errors.KnowledgeBaseError,),
    "GeneratorError": (errors.RagweaveError,),
    "IndexDataError": (errors.RagweaveError, ValueError),
    "KnowledgeBaseError": (errors.RagweaveError,),
    "MissingContextError": (errors.RagweaveError, ValueError, AssertionError),
    "MissingExtraError": (errors.RagweaveError, ImportError),
    "ModelNotFoundError": (errors.RagweaveError,),
    "ModelOutputError": (errors.RagweaveError, ArithmeticError),
    "QuestionError": (errors.RagweaveError, ValueError),
    "RagweaveError": (Exception,),
    "ShapeError": (errors.RagweaveError, ValueError, AssertionError),
    "SourceError": (errors.RagweaveError,),
    "SourceWarning": (UserWarning,),
    "OmissionWarning": (errors.SourceWarning,),
    "StoredStatesWarning": (UserWarning,),
    "TrainingError": (errors.RagweaveError,),
    "TruncatedFileError": (errors.KnowledgeBaseError,),
}
"""What each class can be caught as: part of the public interface, since callers write it in `except`."""


def test_every_class_is_caught_as_its_bases_and_nothing_else() -> None:
    classes = inspect.getmembers(errors, inspect.isclass)
    assert {name: cls.__bases__ for name, cls in classes if cls.__module__ == errors.__name__} == BASES


@pytest.mark.parametrize("name", BASES)
def test_every_class_says_what_it_is_for(name: str) -> None:
    # A docstring of its own: `__doc__` of the class, which is not inherited.
    assert vars(getattr(errors, name))["__doc__"]
    assert str(getattr(errors, name)("what to do")) == "what to do"


def test_a_missing_package_names_the_extra_to_install() -> None:
    with pytest.raises(
        errors.MissingExtraError, match=r"'no_such_module'.*pip install 'ragweave\[embedded\]'"
    ) as caught:
        errors.require_extra("no_such_module", "embedded")
    assert caught.type is errors.MissingExtraError


def test_a_package_that_is_installed_is_found_without_importing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "this", raising=False)
    errors.require_extra("this", "embedded")
    assert "this" not in sys.modules
