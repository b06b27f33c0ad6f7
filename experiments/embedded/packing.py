"""Pack several questions about one passage into one row, so that the passage is encoded only once.

A causal generator is trained on ``passage question answer``. Questions about the same passage share the beginning.
In a row ``passage question answer question answer ...``, a mask hides the questions from each other. Each answer
gets exactly the probability that it has alone, at a fraction of the work.

Notation used for tensor shapes: L tokens of a row, Q questions in it, T tokens of all their answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from ragweave.encoders.linear import fast_linear
from ragweave.retrieval.context_template import ContextTemplate, answer_ids, begin_tokens


@dataclass(frozen=True, slots=True)
class Pair:
    """A question with its answer.

    Attributes:
        question: The question.
        answer: What is to be learned; "" is the null answer: the passage does not say.
    """

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Reading:
    """A passage and questions that it answers.

    Attributes:
        title: The passage's title.
        text: The passage.
        pairs: The questions.
    """

    title: str
    text: str
    pairs: tuple[Pair, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """What the generator reads for one `Reading`.

    Attributes:
        input_ids: Token ids, (L,).
        position_ids: Where each token would stand if its question were alone, (L,).
        blocks: Which question each token belongs to, -1 for the passage, (L,).
        targets: Places of the answers' tokens, (T,).
        owners: Which question each of them belongs to, (T,).
        n_questions: Q.
    """

    input_ids: Tensor
    position_ids: Tensor
    blocks: Tensor
    targets: Tensor
    owners: Tensor
    n_questions: int


def pack(reading: Reading, template: ContextTemplate, tokenizer: Any) -> Row:
    """Put the questions about a passage into one row.

    Args:
        reading: The passage and its questions.
        template: How passage and question are put together.
        tokenizer: The generator's tokenizer.

    Returns:
        The row.
    """
    # The generator reads the tokens of the passage, then those of the question.
    begin = [*begin_tokens(tokenizer), *_ids(tokenizer, template.passage_part(reading.title, reading.text))]
    questions = [_ids(tokenizer, template.question_part(pair.question)) for pair in reading.pairs]
    answers = [answer_ids(tokenizer, pair.answer, causal=True) for pair in reading.pairs]
    shared = len(begin)
    ids, positions, blocks = list(begin), list(range(shared)), [-1] * shared
    targets: list[int] = []
    owners: list[int] = []
    for number, (question, answer) in enumerate(zip(questions, answers, strict=True)):
        own = [*question, *answer]
        targets += range(len(ids) + len(own) - len(answer), len(ids) + len(own))
        owners += [number] * len(answer)
        positions += range(shared, shared + len(own))
        blocks += [number] * len(own)
        ids += own
    return Row(
        torch.tensor(ids),
        torch.tensor(positions),
        torch.tensor(blocks),
        torch.tensor(targets),
        torch.tensor(owners),
        len(reading.pairs),
    )


def answer_log_probs(generator: Any, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
    """Log p(y | x, z) of every question of some rows, and whether greedy search would say y.

    Args:
        generator: A causal language model of transformers with attention by ``sdpa``.
        rows: What it reads together; rows of like lengths leave little of it to padding.

    Returns:
        Log-probabilities with gradient, (Q,) over the questions of all rows, and whether each token of the answer is
        the likeliest, bool, (Q,).
    """
    width = max(len(row.input_ids) for row in rows)
    input_ids, positions = (torch.zeros(len(rows), width, dtype=torch.long) for _ in range(2))
    # Padding sees itself: a softmax needs something.
    mask = torch.eye(width, dtype=torch.bool).repeat(len(rows), 1, 1)
    for number, row in enumerate(rows):
        length = len(row.input_ids)
        input_ids[number, :length], positions[number, :length] = row.input_ids, row.position_ids
        mask[number, :length, :length] = _visible(row.blocks)
    places = torch.cat([row.targets + number * width for number, row in enumerate(rows)])
    with fast_linear(generator):
        hidden = generator.base_model(
            input_ids=input_ids, position_ids=positions, attention_mask=mask[:, None], use_cache=False
        ).last_hidden_state.flatten(0, 1)  # (rows * L, D)
        logits = generator.get_output_embeddings()(hidden[places - 1]).float()  # (T, V)
    wanted = input_ids.flatten()[places]
    first = [0, *accumulate(row.n_questions for row in rows)]
    owners = torch.cat([row.owners + first[number] for number, row in enumerate(rows)])
    values = logits.log_softmax(-1).gather(1, wanted[:, None])[:, 0]
    missed = (logits.argmax(-1) != wanted).to(values.dtype)
    nothing = values.new_zeros(first[-1])
    return nothing.index_add(0, owners, values), nothing.index_add(0, owners, missed) == 0


def _visible(blocks: Tensor) -> Tensor:
    """Which tokens each token of a row sees, (L, L): those before it of the passage and of its own question."""
    same = (blocks[None] == -1) | (blocks[None] == blocks[:, None])
    return same.tril()


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids
