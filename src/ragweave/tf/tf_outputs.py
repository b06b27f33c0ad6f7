"""What the TensorFlow classes return: the outputs of `ragweave.outputs`, with tensors of Keras' backend."""

from __future__ import annotations

from dataclasses import dataclass

from ragweave.outputs import RagSequenceGenerateOutput, RetrievAugLMMarginOutput, RetrievAugLMOutput


@dataclass
class TFRetrievAugLMOutput(RetrievAugLMOutput):
    """What `TFRagModel` returns; fields as in `RetrievAugLMOutput`."""


@dataclass
class TFRetrievAugLMMarginOutput(RetrievAugLMMarginOutput, TFRetrievAugLMOutput):
    """What the models for generation return when called; fields as in `RetrievAugLMMarginOutput`."""


@dataclass
class TFRagGenerateOutput(RagSequenceGenerateOutput):
    """What ``generate`` returns with ``return_dict_in_generate``; fields as in `RagSequenceGenerateOutput`.

    From RAG-Token, ``sequences_scores`` are those that beam search ranked by; None without beam search.
    """
