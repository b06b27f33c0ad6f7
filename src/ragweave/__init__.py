"""ragweave: retrieval-augmented generation models that are scored, trained and decoded as one.

Public names are imported when they are used, so that importing the package loads no framework.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME_OF = {
    "Answer": "provenance.answers",
    "AnswerToken": "provenance.answers",
    "CanonicalHFIndex": "retrieval.canonical",
    "Chunking": "knowledge.ingest_settings",
    "CustomHFIndex": "retrieval.dataset",
    "DatasetIndex": "retrieval.dataset",
    "Index": "retrieval.index_protocol",
    "KnowledgeBase": "knowledge.base",
    "LegacyIndex": "retrieval.legacy",
    "MemoryIndex": "retrieval.memory",
    "RagConfig": "configuration",
    "RagModel": "modeling.rag",
    "RagPipeline": "pipeline.rag_pipeline",
    "RagRetriever": "retrieval.rag_retriever",
    "RagSequenceForGeneration": "modeling.sequence",
    "RagSequenceGenerateOutput": "outputs",
    "RagTokenForGeneration": "modeling.token",
    "RagTokenizer": "tokenization",
    "RagTrainer": "training.trainer",
    "RagTrainingArguments": "training.arguments",
    "ReadSettings": "knowledge.ingest_settings",
    "RetrievAugLMMarginOutput": "outputs",
    "RetrievAugLMOutput": "outputs",
    "Place": "types",
    "RetrievedPassage": "provenance.answers",
    "SearchSettings": "types",
    "TextEncoder": "encoders.text_encoder",
    "register_auto_classes": "modeling.registration",
    "stream_answer": "pipeline.streaming",
}

if TYPE_CHECKING:
    from ragweave.configuration import RagConfig
    from ragweave.encoders.text_encoder import TextEncoder
    from ragweave.knowledge.base import KnowledgeBase
    from ragweave.knowledge.ingest_settings import Chunking, ReadSettings
    from ragweave.modeling.rag import RagModel
    from ragweave.modeling.registration import register_auto_classes
    from ragweave.modeling.sequence import RagSequenceForGeneration
    from ragweave.modeling.token import RagTokenForGeneration
    from ragweave.outputs import RagSequenceGenerateOutput, RetrievAugLMMarginOutput, RetrievAugLMOutput
    from ragweave.pipeline.rag_pipeline import RagPipeline
    from ragweave.pipeline.streaming import stream_answer
    from ragweave.provenance.answers import Answer, AnswerToken, RetrievedPassage
    from ragweave.retrieval.canonical import CanonicalHFIndex
    from ragweave.retrieval.dataset import CustomHFIndex, DatasetIndex
    from ragweave.retrieval.index_protocol import Index
    from ragweave.retrieval.legacy import LegacyIndex
    from ragweave.retrieval.memory import MemoryIndex
    from ragweave.retrieval.rag_retriever import RagRetriever
    from ragweave.tokenization import RagTokenizer
    from ragweave.training.arguments import RagTrainingArguments
    from ragweave.training.trainer import RagTrainer
    from ragweave.types import Place, SearchSettings

__all__ = [
    "Answer",
    "AnswerToken",
    "CanonicalHFIndex",
    "Chunking",
    "CustomHFIndex",
    "DatasetIndex",
    "Index",
    "KnowledgeBase",
    "LegacyIndex",
    "MemoryIndex",
    "Place",
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
    "ReadSettings",
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
