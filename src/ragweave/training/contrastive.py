"""The retriever alone: contrastive training of an encoder on questions and passages, by sentence-transformers."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.trainer_utils import get_last_checkpoint

from ragweave.errors import ConfigurationError, TrainingError, require_extra
from ragweave.training.pairs import TrainingPair

if TYPE_CHECKING:
    from ragweave.encoding import TextEncoder

_COSINE_SCALE = 20.0
"""What cosines are multiplied with to be logits, sentence-transformers' own default."""


def train_retriever(
    encoder: TextEncoder,
    pairs: Sequence[TrainingPair],
    output: Path,
    *,
    resume: bool = False,
    **arguments: Any,
) -> None:
    """Train an encoder of questions and passages, in place.

    The loss of a question is -log softmax of its positive's score among all passages of the batch: its own
    negatives, and the positives and negatives of the other questions (Karpukhin et al. 2020, equation 2). All
    questions have as many negatives as the one that has fewest. Questions with the same positive are in different
    batches, as each would be taught that the other's is wrong.

    Args:
        encoder: What embeds questions and passages.
        pairs: What it learns.
        output: Folder of checkpoints.
        resume: Go on from the last checkpoint there.
        **arguments: Those of sentence-transformers' trainer, which are those of transformers'.

    Raises:
        ConfigurationError: The encoder makes its vectors in a way that sentence-transformers does not know.
        MissingExtraError: The extra ``train`` is not installed.
        TrainingError: There is no checkpoint to go on from.
    """
    require_extra("sentence_transformers", "train")
    if encoder.pooling == "pooler":
        raise ConfigurationError(
            f"{encoder.name} makes its own vector (pooling 'pooler'), which contrastive training does not know: "
            "train it through the marginal likelihood, with 'ragweave train --end-to-end'."
        )
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from sentence_transformers.util import cos_sim, dot_score

    checkpoint = get_last_checkpoint(str(output)) if resume and output.is_dir() else None
    if resume and checkpoint is None:
        raise TrainingError(f"There is no checkpoint in {output} to go on from: leave --resume (resume) out.")
    # The way in which sentence-transformers pools and normalises is read from files.
    start = output / ".start"
    encoder.save_pretrained(start)
    try:
        model = SentenceTransformer(str(start), device=str(encoder.model.device))
    finally:
        shutil.rmtree(start)
    loss = MultipleNegativesRankingLoss(
        model,
        scale=_COSINE_SCALE if encoder.normalize else 1.0,
        similarity_fct=cos_sim if encoder.normalize else dot_score,
    )
    trainer = SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(
            output_dir=str(output), **{"batch_sampler": "no_duplicates", **arguments}
        ),
        train_dataset=Dataset.from_dict(_columns(pairs)),
        loss=loss,
    )
    trainer.train(resume_from_checkpoint=checkpoint)
    trained: Any = model.transformers_model
    encoder.model.load_state_dict(trained.state_dict())
    encoder.model.eval()


def _columns(pairs: Sequence[TrainingPair]) -> dict[str, list[str]]:
    """The pairs as columns; as many negatives as all questions have."""
    count = min(len(pair.negatives) for pair in pairs)
    return {
        "question": [pair.question for pair in pairs],
        "positive": [pair.positive for pair in pairs],
        **{f"negative_{place}": [pair.negatives[place] for pair in pairs] for place in range(count)},
    }
