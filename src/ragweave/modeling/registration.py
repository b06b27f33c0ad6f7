"""Registration of ragweave's classes with transformers' Auto classes, by a call and never by an import."""

from __future__ import annotations

from transformers import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING, AutoConfig, AutoModel, AutoTokenizer

from ragweave.configuration import RagConfig
from ragweave.modeling.rag import RagModel
from ragweave.modeling.sequence import RagSequenceForGeneration
from ragweave.modeling.token import RagTokenForGeneration
from ragweave.tokenization import RagTokenizer


def register_auto_classes() -> None:
    """Let transformers' Auto classes return ragweave's RAG classes instead of transformers' own, in this process.

    ``AutoConfig``, ``AutoTokenizer``, ``AutoModel`` (`RagModel`) and ``AutoModelForSeq2SeqLM`` (the one of
    `RagTokenForGeneration` and `RagSequenceForGeneration` that saved the folder) then open RAG folders. Further calls
    change nothing.

    Example:
        ```python
        register_auto_classes()
        model = AutoModelForSeq2SeqLM.from_pretrained("facebook/rag-sequence-nq")
        ```
    """
    AutoConfig.register(RagConfig.model_type, RagConfig, exist_ok=True)
    AutoModel.register(RagConfig, RagModel, exist_ok=True)
    AutoTokenizer.register(RagConfig, RagTokenizer, exist_ok=True)
    # The mapping takes several classes, and picks the one in config.json. AutoModelForSeq2SeqLM.register takes one.
    classes = (RagTokenForGeneration, RagSequenceForGeneration)
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING.register(RagConfig, classes, exist_ok=True)
