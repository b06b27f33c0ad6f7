"""transformers' Auto classes, told about ragweave: by a call, never by an import."""

from __future__ import annotations


def register_auto_classes() -> None:
    """Let transformers' Auto classes give ragweave's RAG classes, in this process, in place of its own.

    Afterwards ``AutoConfig``, ``AutoTokenizer``, ``AutoModel`` (`RagModel`) and ``AutoModelForSeq2SeqLM`` (the one
    of `RagTokenForGeneration` and `RagSequenceForGeneration` that saved the folder) open RAG folders. Calling it
    again changes nothing.

    Example:
        ```python
        register_auto_classes()
        model = AutoModelForSeq2SeqLM.from_pretrained("facebook/rag-sequence-nq")
        ```
    """
    from transformers import AutoConfig, AutoModel, AutoTokenizer
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING

    from ragweave.configuration import RagConfig
    from ragweave.modeling.rag import RagModel
    from ragweave.modeling.sequence import RagSequenceForGeneration
    from ragweave.modeling.token import RagTokenForGeneration
    from ragweave.tokenization import RagTokenizer

    AutoConfig.register(RagConfig.model_type, RagConfig, exist_ok=True)
    AutoModel.register(RagConfig, RagModel, exist_ok=True)
    AutoTokenizer.register(RagConfig, RagTokenizer, exist_ok=True)
    # Of several classes, the mapping takes the one that config.json names; AutoModelForSeq2SeqLM.register takes one.
    classes = (RagTokenForGeneration, RagSequenceForGeneration)
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING.register(RagConfig, classes, exist_ok=True)
