"""What the metrics ask of their arguments."""

from __future__ import annotations

from collections.abc import Collection, Sized
from typing import Any

from numpy.typing import NDArray

from ragweave.errors import ConfigurationError


def require_golds(golds: Collection[Any], name: str = "golds") -> None:
    """Check that there is something to compare with, and that it is no bare string.

    Raises:
        ConfigurationError: There is no gold, or the gold is a string, whose letters would be taken one by one.
    """
    if isinstance(golds, str | bytes):
        raise ConfigurationError(f"{name} is a string: give a list, such as [{golds!r}].")
    if len(golds) == 0:
        raise ConfigurationError(
            f"{name} is empty, so there is nothing to measure by: leave such questions out."
        )


def require_depth(k: int) -> None:
    """Check how far down a ranked list is looked.

    Raises:
        ConfigurationError: ``k`` is less than one.
    """
    if k < 1:
        raise ConfigurationError(f"k={k} looks at nothing: give 1 or more.")


def require_same_length(one: Sized, other: Sized, names: str) -> None:
    """Check that two lists go together, item by item, and that there are any.

    Raises:
        ConfigurationError: One is longer than the other, or both are empty.
    """
    if len(one) != len(other):
        raise ConfigurationError(f"{names} have {len(one)} and {len(other)} items: give one for one.")
    if len(one) == 0:
        raise ConfigurationError(f"{names} are empty: there is nothing to measure.")


def require_vector(numbers: NDArray[Any], name: str, item: str) -> None:
    """Check that an array is one-dimensional, (N,).

    Raises:
        ConfigurationError: It has another shape.
    """
    if numbers.ndim != 1:
        raise ConfigurationError(f"{name} has the shape {numbers.shape}: give one number for each {item}.")
