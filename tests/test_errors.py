"""Every error is a RagweaveError, and a ValueError or ImportError where callers expect one."""

from __future__ import annotations

import inspect

import pytest

from ragweave import errors

CLASSES = [
    item
    for _, item in inspect.getmembers(errors, inspect.isclass)
    if item.__module__ == errors.__name__ and not issubclass(item, Warning)
]


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_can_be_caught_as_one(cls: type[Exception]) -> None:
    assert issubclass(cls, errors.RagweaveError)
    assert cls.__doc__
    with pytest.raises(errors.RagweaveError, match="what to do"):
        raise cls("what to do")


@pytest.mark.parametrize("name", ["ConfigurationError", "ShapeError", "MissingContextError", "QuestionError"])
def test_wrong_arguments_are_value_errors(name: str) -> None:
    assert issubclass(getattr(errors, name), ValueError)


def test_a_missing_package_names_the_extra_to_install() -> None:
    with pytest.raises(
        errors.MissingExtraError, match=r"'no_such_module'.*pip install 'ragweave\[embedded\]'"
    ):
        errors.require_extra("no_such_module", "embedded")
    with pytest.raises(ImportError):
        errors.require_extra("no_such_module", "embedded")


def test_a_package_that_is_there_is_found_without_importing_it() -> None:
    errors.require_extra("json", "embedded")
