"""Keras gets its backend, TensorFlow unless KERAS_BACKEND names another, before a test module imports it."""

from __future__ import annotations

import pytest

from ragweave.tf import require_keras

require_keras()


@pytest.fixture(autouse=True)
def quiet(quiet_transformers: None) -> None:
    """No advice and progress bars of transformers."""
