"""Sets the backend of Keras, TensorFlow unless KERAS_BACKEND names another, before a test module imports Keras."""

from __future__ import annotations

import pytest

from ragweave.tf import require_keras

require_keras()


@pytest.fixture(autouse=True)
def quiet(quiet_transformers: None) -> None:
    """Silence advice and progress bars of transformers."""
