"""The RAG classes for TensorFlow: Keras 3 models that share weights and folders with the torch classes.

Importing this package loads no framework. The first use of a class imports Keras.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ragweave.errors import ConfigurationError, require_extra

if TYPE_CHECKING:  # the names that `as` repeats are public to type checkers
    from ragweave.tf.tf_outputs import TFRagGenerateOutput as TFRagGenerateOutput
    from ragweave.tf.tf_outputs import TFRetrievAugLMMarginOutput as TFRetrievAugLMMarginOutput
    from ragweave.tf.tf_outputs import TFRetrievAugLMOutput as TFRetrievAugLMOutput
    from ragweave.tf.tf_rag_model import TFRagModel as TFRagModel
    from ragweave.tf.tf_rag_sequence import TFRagSequenceForGeneration as TFRagSequenceForGeneration
    from ragweave.tf.tf_rag_token import TFRagTokenForGeneration as TFRagTokenForGeneration

_HOME_OF = {
    "TFRagGenerateOutput": "tf_outputs",
    "TFRagModel": "tf_rag_model",
    "TFRagSequenceForGeneration": "tf_rag_sequence",
    "TFRagTokenForGeneration": "tf_rag_token",
    "TFRetrievAugLMMarginOutput": "tf_outputs",
    "TFRetrievAugLMOutput": "tf_outputs",
}
__all__ = sorted(_HOME_OF)

_VARIABLE = "KERAS_BACKEND"
_BACKENDS = ("tensorflow", "jax", "torch")


def require_keras() -> None:
    """Make sure that Keras runs on the right backend: TensorFlow, unless ``KERAS_BACKEND`` names another.

    Keras reads the variable once, when it is first imported. Raises `ConfigurationError` if Keras runs on another
    backend already or the variable names an unknown one, and `MissingExtraError` if a package is missing.
    """
    backend = os.environ.get(_VARIABLE, "tensorflow")
    if backend not in _BACKENDS:
        raise ConfigurationError(f"{_VARIABLE} is {backend!r}; choose one of {', '.join(_BACKENDS)}.")
    keras = sys.modules.get("keras")
    if keras is None:
        require_extra("keras", "tf")
        if backend == "tensorflow":
            require_extra("tensorflow", "tf")
        os.environ[_VARIABLE] = backend
    elif keras.config.backend() != backend:
        raise ConfigurationError(
            f"Keras was imported with the backend '{keras.config.backend()}', but these classes need '{backend}': "
            f"set {_VARIABLE}={backend} before anything imports Keras."
        )


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'ragweave.tf' has no attribute {name!r}")
    require_keras()
    return getattr(import_module(f"ragweave.tf.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
