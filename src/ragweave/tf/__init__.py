"""The RAG classes for TensorFlow, as models of Keras 3, with the weights and folders of the torch classes.

Importing this package loads no framework. The first use of a class imports Keras, which chooses its backend then: see
`ragweave.tf.backend`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOME_OF = {
    "TFRagGenerateOutput": "outputs",
    "TFRagModel": "rag",
    "TFRagSequenceForGeneration": "sequence",
    "TFRagTokenForGeneration": "token",
    "TFRetrievAugLMMarginOutput": "outputs",
    "TFRetrievAugLMOutput": "outputs",
}

if TYPE_CHECKING:
    from ragweave.tf.outputs import TFRagGenerateOutput, TFRetrievAugLMMarginOutput, TFRetrievAugLMOutput
    from ragweave.tf.rag import TFRagModel
    from ragweave.tf.sequence import TFRagSequenceForGeneration
    from ragweave.tf.token import TFRagTokenForGeneration

__all__ = [
    "TFRagGenerateOutput",
    "TFRagModel",
    "TFRagSequenceForGeneration",
    "TFRagTokenForGeneration",
    "TFRetrievAugLMMarginOutput",
    "TFRetrievAugLMOutput",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'ragweave.tf' has no attribute {name!r}")
    from ragweave.tf.backend import require_keras

    require_keras()
    return getattr(import_module(f"ragweave.tf.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
