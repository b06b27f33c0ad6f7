"""ragweave: retrieval-augmented generation models that are scored, trained and decoded as one.

Public names are imported when they are used, so that importing the package loads no framework.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_NAMES = {
    "configuration": "RagConfig",
    "encoders.text_encoder": "TextEncoder",
    "knowledge.base": "KnowledgeBase",
    "knowledge.ingest_settings": "Chunking ReadSettings TableSettings",
    "modeling.rag": "RagModel",
    "modeling.registration": "register_auto_classes",
    "modeling.sequence": "RagSequenceForGeneration",
    "modeling.token": "RagTokenForGeneration",
    "outputs": "RagSequenceGenerateOutput RetrievAugLMMarginOutput RetrievAugLMOutput",
    "pipeline.rag_pipeline": "RagPipeline",
    "pipeline.streaming": "stream_answer",
    "provenance.answers": "Answer AnswerToken RetrievedPassage",
    "retrieval.canonical": "CanonicalHFIndex",
    "retrieval.dataset": "CustomHFIndex DatasetIndex",
    "retrieval.index_protocol": "Index",
    "retrieval.legacy": "LegacyIndex",
    "retrieval.memory": "MemoryIndex",
    "retrieval.rag_retriever": "RagRetriever",
    "tokenization": "RagTokenizer",
    "training.arguments": "RagTrainingArguments",
    "training.trainer": "RagTrainer",
    "types": "Place SearchSettings",
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

__all__ = sorted(["__version__", *" ".join(_NAMES.values()).split()])


def __getattr__(name: str) -> Any:
    for module, names in _NAMES.items():
        if name in names.split():
            return getattr(import_module(f"ragweave.{module}"), name)
    raise AttributeError(f"module 'ragweave' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
