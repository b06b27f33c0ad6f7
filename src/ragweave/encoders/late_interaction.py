"""Reranking by late interaction: every token of a question is compared with every token of a passage (ColBERT).

Notation used for tensor shapes: B questions, C candidates of a question.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from transformers import AutoConfig

from ragweave.encoders.cross_encoder import Reranker
from ragweave.encoders.pooling import read_json
from ragweave.errors import ConfigurationError, ModelOutputError, require_extra
from ragweave.model_files import check_config, check_weights, reading_model, refuse_code

_MODULES = {"Transformer", "Dense", "MultiVectorMask", "Normalize"}
_KINDS = {"MultiVectorEncoder", "ColBERT"}
_ADVICE = (
    "give a folder with a cross-encoder or a late-interaction model and its tokenizer, or a name on the hub"
)


class LateInteractionReranker:
    """A late-interaction model of sentence-transformers, such as ColBERT: one vector per token, scored with MaxSim.

    The score of a passage is the sum, over the question's tokens, of the largest inner product with a token of the
    passage (Khattab and Zaharia 2020, "ColBERT"). The models are trained with a softmax over the scores of passages,
    so that a score is a logit of p(z|x).
    """

    def __init__(self, model: Any, *, batch_size: int = 32) -> None:
        self.model = model.eval()
        self.batch_size = batch_size

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path, *, device: str | None = None, batch_size: int = 32
    ) -> Self:
        """Load a model of sentence-transformers, PyLate or ColBERT's authors, from a folder or the hub."""
        require_extra("sentence_transformers", "train")
        from sentence_transformers import MultiVectorEncoder

        name = str(name_or_path)
        types = [module.get("type", "").rsplit(".", 1) for module in read_json(name, "modules.json") or []]
        if unsupported := {kind for *_, kind in types if kind not in _MODULES}:
            raise ConfigurationError(
                f"The late-interaction model '{name}' has modules that ragweave does not support "
                f"({', '.join(sorted(unsupported))}): choose another."
            )
        settings = read_json(name, "sentence_bert_config.json") or {}
        for part in ("model_args", "model_kwargs", "config_args", "config_kwargs"):
            refuse_code(settings.get(part) or {})
        with reading_model("late-interaction model", name, _ADVICE):
            check_config(AutoConfig.from_pretrained(name, trust_remote_code=False))
            model = MultiVectorEncoder(name, device=device or "cpu", trust_remote_code=False)
        check_weights(model, name)
        return cls(model, batch_size=batch_size)

    def score(self, questions: Sequence[str], docs: Sequence[dict[str, Any]]) -> list[NDArray[np.float32]]:
        """Score passages; see `PassageScorer`. Texts that are too long lose their ends."""
        scores = []
        # Question by question, because the vectors of all passages' tokens would take gigabytes.
        for question, doc in zip(questions, docs, strict=True):
            texts = [f"{title} {text}".strip() for title, text in zip(doc["title"], doc["text"], strict=True)]
            logits = np.zeros(0, np.float32)
            if texts:
                options = {"batch_size": self.batch_size, "show_progress_bar": False}
                passages = self.model.encode_document(texts, **options)
                logits = self.model.similarity(self.model.encode_query([question], **options), passages)[0]
                logits = logits.float().cpu().numpy()
            if not np.isfinite(logits).all():
                raise ModelOutputError(
                    "The late-interaction model gives scores that are NaN or infinite: choose another reranker."
                )
            scores.append(logits)
        return scores


def load_reranker(
    name_or_path: str | Path, *, device: str | None = None
) -> Reranker | LateInteractionReranker:
    """Load a cross-encoder or a late-interaction model, whichever it is, from a folder or the hub."""
    name = str(name_or_path)
    with reading_model("reranker", name, _ADVICE):
        architectures = AutoConfig.from_pretrained(name, trust_remote_code=False).architectures or []
    # Checked first because every model has config.json; offline, other files may be missing from the cache.
    if not any(architecture.endswith("ForSequenceClassification") for architecture in architectures):
        settings = read_json(name, "config_sentence_transformers.json") or {}
        if "HF_ColBERT" in architectures or settings.get("model_type") in _KINDS:
            return LateInteractionReranker.from_pretrained(name, device=device)
    return Reranker.from_pretrained(name, device=device)
