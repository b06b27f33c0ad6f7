"""The outputs of the TensorFlow classes: those of `ragweave.outputs`, with tensors of Keras' backend."""

from __future__ import annotations

from dataclasses import dataclass

from ragweave.outputs import RagSequenceGenerateOutput, RetrievAugLMMarginOutput, RetrievAugLMOutput


@dataclass
class TFRetrievAugLMOutput(RetrievAugLMOutput):
    """Output of `TFRagModel`; fields as in `RetrievAugLMOutput`."""


@dataclass
class TFRetrievAugLMMarginOutput(RetrievAugLMMarginOutput, TFRetrievAugLMOutput):
    """Output of the models for generation when called; fields as in `RetrievAugLMMarginOutput`."""


@dataclass
class TFRagGenerateOutput(RagSequenceGenerateOutput):
    """Output of ``generate`` with ``return_dict_in_generate``; fields as in `RagSequenceGenerateOutput`.

    From RAG-Token, ``sequences_scores`` are those that beam search ranked by; None without beam search.
    """
