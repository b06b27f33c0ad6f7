"""ragweave: retrieval-augmented generation models that are scored, trained and decoded as one.

Public names are imported when they are used, so that importing the package loads no framework.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME_OF = {
    "Answer": "answers",
    "AnswerToken": "answers",
    "Chunking": "knowledge.chunking",
    "DatasetIndex": "retrieval.dataset",
    "Index": "retrieval.protocol",
    "KnowledgeBase": "knowledge.base",
    "MemoryIndex": "retrieval.memory",
    "RagConfig": "configuration",
    "RagModel": "modeling.rag",
    "RagPipeline": "pipeline",
    "RagRetriever": "retrieval.retriever",
    "RagSequenceForGeneration": "modeling.sequence",
    "RagSequenceGenerateOutput": "outputs",
    "RagTokenForGeneration": "modeling.token",
    "RagTokenizer": "tokenization",
    "RagTrainer": "training.trainer",
    "RagTrainingArguments": "training.arguments",
    "RetrievAugLMMarginOutput": "outputs",
    "RetrievAugLMOutput": "outputs",
    "RetrievedPassage": "answers",
    "SearchSettings": "knowledge.search",
    "TextEncoder": "encoding",
    "register_auto_classes": "registration",
    "stream_answer": "streaming",
}

if TYPE_CHECKING:
    from ragweave.answers import Answer, AnswerToken, RetrievedPassage
    from ragweave.configuration import RagConfig
    from ragweave.encoding import TextEncoder
    from ragweave.knowledge.base import KnowledgeBase
    from ragweave.knowledge.chunking import Chunking
    from ragweave.knowledge.search import SearchSettings
    from ragweave.modeling.rag import RagModel
    from ragweave.modeling.sequence import RagSequenceForGeneration
    from ragweave.modeling.token import RagTokenForGeneration
    from ragweave.outputs import RagSequenceGenerateOutput, RetrievAugLMMarginOutput, RetrievAugLMOutput
    from ragweave.pipeline import RagPipeline
    from ragweave.registration import register_auto_classes
    from ragweave.retrieval.dataset import DatasetIndex
    from ragweave.retrieval.memory import MemoryIndex
    from ragweave.retrieval.protocol import Index
    from ragweave.retrieval.retriever import RagRetriever
    from ragweave.streaming import stream_answer
    from ragweave.tokenization import RagTokenizer
    from ragweave.training.arguments import RagTrainingArguments
    from ragweave.training.trainer import RagTrainer

__all__ = [
    "Answer",
    "AnswerToken",
    "Chunking",
    "DatasetIndex",
    "Index",
    "KnowledgeBase",
    "MemoryIndex",
    "RagConfig",
    "RagModel",
    "RagPipeline",
    "RagRetriever",
    "RagSequenceForGeneration",
    "RagSequenceGenerateOutput",
    "RagTokenForGeneration",
    "RagTokenizer",
    "RagTrainer",
    "RagTrainingArguments",
    "RetrievAugLMMarginOutput",
    "RetrievAugLMOutput",
    "RetrievedPassage",
    "SearchSettings",
    "TextEncoder",
    "__version__",
    "register_auto_classes",
    "stream_answer",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'ragweave' has no attribute {name!r}")
    return getattr(import_module(f"ragweave.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
