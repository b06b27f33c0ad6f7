"""The retriever alone: contrastive training of an encoder on questions and passages, by sentence-transformers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain, cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ragweave.errors import ConfigurationError, require_extra
from ragweave.training.guards import GuardedTrainer
from ragweave.training.pairs import TrainingPair

if TYPE_CHECKING:
    from transformers import Trainer

    from ragweave.encoders.text_encoder import TextEncoder

_COSINE_SCALE = 20.0
"""What cosines are multiplied with to be logits, sentence-transformers' own default."""


def train_retriever(
    encoder: TextEncoder,
    pairs: Sequence[TrainingPair],
    output: Path,
    *,
    resume: bool = False,
    around: Callable[[Trainer], AbstractContextManager[None]] | None = None,
    **arguments: Any,
) -> None:
    """Train an encoder of questions and passages, in place.

    The loss of a question is -log softmax of its positive's score among all passages of the batch: its own
    negatives, and the positives and negatives of the other questions (Karpukhin et al. 2020, equation 2). A question
    with fewer negatives than others has its own more than once, or where it has none, those of others. Questions with
    the same positive are in different batches, as each would be taught that the other's is wrong.

    Args:
        encoder: What embeds questions and passages.
        pairs: What it learns.
        output: Folder of checkpoints.
        resume: Go on from the last whole checkpoint there; where there is none yet, the run begins.
        around: Called with the trainer; training happens within what it returns, such as a bar.
        **arguments: Those of sentence-transformers' trainer, which are those of transformers'.

    Raises:
        ConfigurationError: The encoder makes its vectors in a way that sentence-transformers does not know, or the
            run has several processes.
        MissingExtraError: The extra ``train`` is not installed.
        TrainingError: The run cannot go on, see `GuardedTrainer.train`; the encoder is as it was.
    """
    require_one_process()
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

    class ContrastiveTrainer(GuardedTrainer, SentenceTransformerTrainer):
        def learned(self) -> Iterable[Sequence[str]]:
            return ([pair.question, pair.positive, *pair.negatives] for pair in pairs)

    # The way in which sentence-transformers pools and normalises is read from files. They are not below the run's
    # folder, where a run that is killed meanwhile would leave them.
    with TemporaryDirectory(prefix="ragweave-") as start:
        encoder.save_pretrained(Path(start))
        model = SentenceTransformer(start, device=str(encoder.model.device))
    loss = MultipleNegativesRankingLoss(
        model,
        scale=_COSINE_SCALE if encoder.normalize else 1.0,
        similarity_fct=cos_sim if encoder.normalize else dot_score,
    )
    trainer = ContrastiveTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(
            output_dir=str(output), **{"batch_sampler": "no_duplicates", **arguments}
        ),
        train_dataset=Dataset.from_dict(_columns(pairs)),
        loss=loss,
    )
    with nullcontext() if around is None else around(trainer):
        trainer.train(resume_from_checkpoint=resume)
    trained: Any = model.transformers_model
    encoder.model.load_state_dict(trained.state_dict())
    encoder.model.eval()


def require_one_process() -> None:
    """Check that this is a run of one process.

    Raises:
        ConfigurationError: It was started by torchrun or the like, as one of several.
    """
    count = os.environ.get("WORLD_SIZE", "1")
    if count not in ("", "1"):
        raise ConfigurationError(
            f"The retriever alone is trained in one process, and this is one of {count} (WORLD_SIZE): run it without "
            "torchrun."
        )


def _columns(pairs: Sequence[TrainingPair]) -> dict[str, list[str]]:
    """The pairs as columns, with as many negatives as the question has that has most."""
    count = max(len(pair.negatives) for pair in pairs)
    shared = list(chain.from_iterable(pair.negatives for pair in pairs))
    positives = [pair.positive for pair in pairs]
    rows = [
        pair.negatives or _borrowed(pair, place, shared) or _borrowed(pair, place, positives)
        for place, pair in enumerate(pairs)
    ]
    filled = [list(islice(cycle(row), count)) for row in rows]
    return {
        "question": [pair.question for pair in pairs],
        "positive": positives,
        **{f"negative_{place}": [row[place] for row in filled] for place in range(count)},
    }


def _borrowed(pair: TrainingPair, place: int, texts: Sequence[str]) -> tuple[str, ...]:
    """One of some texts that is not the question's positive, if there is one."""
    # Not the same for all questions: those with the same text are never in one batch.
    turned = chain(islice(texts, place % max(len(texts), 1), None), texts)
    return tuple(islice((text for text in turned if text != pair.positive), 1))
