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
    "TableSettings": "knowledge.ingest_settings",
    "TextEncoder": "encoders.text_encoder",
    "register_auto_classes": "modeling.registration",
    "stream_answer": "pipeline.streaming",
}

if TYPE_CHECKING:  # the names that `as` repeats are public to type checkers
    from ragweave.configuration import RagConfig as RagConfig
    from ragweave.encoders.text_encoder import TextEncoder as TextEncoder
    from ragweave.knowledge.base import KnowledgeBase as KnowledgeBase
    from ragweave.knowledge.ingest_settings import Chunking as Chunking
    from ragweave.knowledge.ingest_settings import ReadSettings as ReadSettings
    from ragweave.knowledge.ingest_settings import TableSettings as TableSettings
    from ragweave.modeling.rag import RagModel as RagModel
    from ragweave.modeling.registration import register_auto_classes as register_auto_classes
    from ragweave.modeling.sequence import RagSequenceForGeneration as RagSequenceForGeneration
    from ragweave.modeling.token import RagTokenForGeneration as RagTokenForGeneration
    from ragweave.outputs import RagSequenceGenerateOutput as RagSequenceGenerateOutput
    from ragweave.outputs import RetrievAugLMMarginOutput as RetrievAugLMMarginOutput
    from ragweave.outputs import RetrievAugLMOutput as RetrievAugLMOutput
    from ragweave.pipeline.rag_pipeline import RagPipeline as RagPipeline
    from ragweave.pipeline.streaming import stream_answer as stream_answer
    from ragweave.provenance.answers import Answer as Answer
    from ragweave.provenance.answers import AnswerToken as AnswerToken
    from ragweave.provenance.answers import RetrievedPassage as RetrievedPassage
    from ragweave.retrieval.canonical import CanonicalHFIndex as CanonicalHFIndex
    from ragweave.retrieval.dataset import CustomHFIndex as CustomHFIndex
    from ragweave.retrieval.dataset import DatasetIndex as DatasetIndex
    from ragweave.retrieval.index_protocol import Index as Index
    from ragweave.retrieval.legacy import LegacyIndex as LegacyIndex
    from ragweave.retrieval.memory import MemoryIndex as MemoryIndex
    from ragweave.retrieval.rag_retriever import RagRetriever as RagRetriever
    from ragweave.tokenization import RagTokenizer as RagTokenizer
    from ragweave.training.arguments import RagTrainingArguments as RagTrainingArguments
    from ragweave.training.trainer import RagTrainer as RagTrainer
    from ragweave.types import Place as Place
    from ragweave.types import SearchSettings as SearchSettings

__all__ = sorted([*_HOME_OF, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'ragweave' has no attribute {name!r}")
    return getattr(import_module(f"ragweave.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
