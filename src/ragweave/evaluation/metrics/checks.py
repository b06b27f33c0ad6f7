"""Checks of the metrics' arguments; both raise a `ConfigurationError`."""

from __future__ import annotations

from collections.abc import Sized

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ragweave.errors import ConfigurationError


def require_same_length(one: Sized, other: Sized, names: str) -> None:
    """Check that two lists have the same length and are not empty."""
    if len(one) != len(other):
        raise ConfigurationError(f"{names} have {len(one)} and {len(other)} items: give one for one.")
    if len(one) == 0:
        raise ConfigurationError(f"{names} are empty: there is nothing to measure.")


def as_vector(values: ArrayLike, name: str, item: str) -> NDArray[np.float64]:
    """Convert numbers to an array of shape (N,)."""
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1:
        raise ConfigurationError(f"{name} has the shape {vector.shape}: give one number for each {item}.")
    return vector
