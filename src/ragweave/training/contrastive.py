"""Contrastive training of the retriever alone, with sentence-transformers, on questions and passages.

sentence-transformers belongs to the extra "train" and is imported in `train_retriever`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import chain, cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from datasets import Dataset
from torch.nn import Module
from transformers import Trainer

from ragweave.encoders.text_encoder import TextEncoder, with_title
from ragweave.errors import ConfigurationError, DataError, require_extra
from ragweave.knowledge.base import KnowledgeBase
from ragweave.matching import has_answer
from ragweave.training.resumable_trainer import ResumableTrainer
from ragweave.types import Example

# BM25 results to look at, as in Karpukhin et al. 2020, section 3.2.
_CANDIDATES = 100
# Factor from cosines to logits, the default of sentence-transformers.
_COSINE_SCALE = 20.0


@dataclass(frozen=True, slots=True)
class TrainingPair:
    """A question, a passage that answers it, and passages that share its words but do not answer it, best first.

    The passages include their titles, as the encoder reads them.
    """

    question: str
    positive: str
    negatives: tuple[str, ...] = ()


def training_pairs(
    base: KnowledgeBase,
    examples: Sequence[Example],
    *,
    n_negatives: int = 1,
    progress: Callable[[int], None] | None = None,
) -> list[TrainingPair]:
    """Find a positive passage for each question, and ``n_negatives`` hard negatives among the BM25 results.

    The positive is the best gold passage (or passage of a gold document) in the BM25 ranking that contains an
    answer, or else the best one. Without gold passages, it is the first BM25 result that contains an answer
    (Karpukhin et al. 2020, section 4.1). Negatives are the best BM25 results that are neither gold nor a copy of the
    positive, and that contain no answer, if answers are known. ``progress`` is called with the number of newly
    finished questions.

    Returns:
        A pair for every question with a positive passage.

    Raises:
        DataError: No question has one.
        KnowledgeBaseError: The knowledge base was built without postings.
    """
    gold_rows = base.rows_of({name for example in examples for name in example.gold_passages})
    scorer = base.text_scorer()
    pairs: list[TrainingPair] = []
    for example in examples:
        ranking = scorer(example.question).best(_CANDIDATES)[0].tolist()
        gold = [row for name in example.gold_passages for row in gold_rows[name]]
        pair = _pair(base, example, ranking, gold, n_negatives)
        if pair is not None:
            pairs.append(pair)
        if progress is not None:
            progress(1)
    if not pairs:
        raise DataError(
            "No passage answers any of the questions: name gold passages in the data, or build the knowledge base "
            "from the documents that the questions are about."
        )
    return pairs


def _pair(
    base: KnowledgeBase, example: Example, ranking: list[int], gold: list[int], n_negatives: int
) -> TrainingPair | None:
    def answers(row: int) -> bool:
        return bool(example.answers) and has_answer(base.passage(row).text, example.answers)

    def text(row: int) -> str:
        passage = base.passage(row)
        return with_title(passage.title, passage.text)

    ranked_gold = [*(row for row in ranking if row in gold), *(row for row in gold if row not in ranking)]
    best_gold = ranked_gold[0] if ranked_gold else None
    positive = next(filter(answers, ranked_gold or ranking), best_gold)
    if positive is None:
        return None
    # A copy of the positive in another row is not a negative.
    copied = base.passage(positive).text
    others = (row for row in ranking if row not in gold and base.passage(row).text != copied)
    negatives = islice((row for row in others if not answers(row)), n_negatives)
    return TrainingPair(example.question.strip(), text(positive), tuple(map(text, negatives)))


def train_retriever(
    encoder: TextEncoder,
    pairs: Sequence[TrainingPair],
    output: Path,
    *,
    resume: bool = False,
    around: Callable[[Trainer], AbstractContextManager[None]] | None = None,
    **arguments: Any,
) -> None:
    """Train an encoder of questions and passages, in place, with checkpoints in the folder ``output``.

    The loss of a question is -log softmax of the positive's score among all passages of the batch: its negatives,
    and the positives and negatives of the other questions (Karpukhin et al. 2020, equation 2). A question with fewer
    negatives than others repeats its own or, if it has none, borrows one. Questions with the same positive are in
    different batches, because each would count the other's as wrong.

    ``resume`` continues from the last complete checkpoint, if there is one. ``around`` is called with the trainer;
    training runs within the context manager that it returns. The arguments are those of sentence-transformers'
    trainer, and so of transformers'.

    Raises:
        ConfigurationError: sentence-transformers lacks the encoder's pooling, or the run has several processes.
        MissingExtraError: The extra ``train`` is not installed.
        TrainingError: The run cannot continue, see `ResumableTrainer.train`; the encoder is unchanged.
    """
    require_one_process()
    require_extra("sentence_transformers", "train")
    if encoder.pooling == "pooler":
        raise ConfigurationError(
            f"{encoder.name} has the pooling 'pooler', which contrastive training does not support: train it with "
            "'ragweave train --end-to-end' (RagTrainer with end_to_end=True)."
        )
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss, MultipleNegativesRankingLoss
    from sentence_transformers.util import cos_sim, dot_score

    class ContrastiveTrainer(ResumableTrainer, SentenceTransformerTrainer):
        def training_texts(self) -> Iterable[Sequence[str]]:
            return ([pair.question, pair.positive, *pair.negatives] for pair in pairs)

    # sentence-transformers reads the pooling and the normalisation from files. They are written to a temporary
    # folder, because a killed run would leave them in its output folder.
    with TemporaryDirectory(prefix="ragweave-") as folder:
        encoder.save_pretrained(Path(folder))
        model = SentenceTransformer(folder, device=str(encoder.model.device))
    loss: Module = MultipleNegativesRankingLoss(
        model,
        scale=_COSINE_SCALE if encoder.normalize else 1.0,
        similarity_fct=cos_sim if encoder.normalize else dot_score,
    )
    if encoder.dim is not None:
        loss = MatryoshkaLoss(model, loss, [encoder.dim])
    columns = _columns(pairs)
    prompts = dict.fromkeys(columns, encoder.passage_prompt) | {"question": encoder.question_prompt}
    settings = {"batch_sampler": "no_duplicates", "output_dir": str(output), "prompts": prompts, **arguments}
    trainer = ContrastiveTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(**settings),
        train_dataset=Dataset.from_dict(columns),
        loss=loss,
    )
    with nullcontext() if around is None else around(trainer):
        trainer.train(resume_from_checkpoint=resume)
    trained: Any = model.transformers_model
    encoder.model.load_state_dict(trained.state_dict())
    encoder.model.eval()


def require_one_process() -> None:
    """Check that this is not one of several processes, started for example by torchrun."""
    count = os.environ.get("WORLD_SIZE", "1")
    if count not in ("", "1"):
        raise ConfigurationError(
            f"The retriever alone is trained in one process, and this is one of {count}: run it without torchrun."
        )


def _columns(pairs: Sequence[TrainingPair]) -> dict[str, list[str]]:
    """The pairs as columns, all with the largest number of negatives."""
    count = max(len(pair.negatives) for pair in pairs)
    negatives = list(chain.from_iterable(pair.negatives for pair in pairs))
    positives = [pair.positive for pair in pairs]
    rows = [
        pair.negatives or _borrowed(pair, number, negatives) or _borrowed(pair, number, positives)
        for number, pair in enumerate(pairs)
    ]
    filled = [list(islice(cycle(row), count)) for row in rows]
    return {
        "question": [pair.question for pair in pairs],
        "positive": positives,
        **{f"negative_{column}": [row[column] for row in filled] for column in range(count)},
    }


def _borrowed(pair: TrainingPair, number: int, texts: Sequence[str]) -> tuple[str, ...]:
    """The first text that is not the pair's positive, if there is one."""
    # Each pair starts at a different text, because pairs with the same text are never in the same batch.
    rotated = chain(islice(texts, number % max(len(texts), 1), None), texts)
    return tuple(islice((text for text in rotated if text != pair.positive), 1))
