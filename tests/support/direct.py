"""The equations of the paper, evaluated slowly and plainly: one context, one answer at a time, in float64.

Nothing here uses ragweave's own batching, padding, caching or marginalisation.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def context_of(inputs: dict[str, Tensor], question: int, passage: int) -> Tensor:
    """One context without its padding, (S',)."""
    row = question * inputs["doc_scores"].shape[1] + passage
    return inputs["context_input_ids"][row][inputs["context_attention_mask"][row] == 1]


def next_token_log_probs(model: Any, context: Tensor, read: list[int]) -> Tensor:
    """log p(. | context, read[:t]) for every t, (len(read), V); the first of ``read`` is the start token.

    A causal generator reads no start token: its prompt's last token stands for it.
    """
    generator = model.generator
    with torch.no_grad():
        if generator.config.is_encoder_decoder:
            logits = generator(input_ids=context[None], decoder_input_ids=torch.tensor([read])).logits[0]
        else:
            ids = torch.cat([context, torch.tensor(read[1:], dtype=torch.long)])
            logits = generator(input_ids=ids[None]).logits[0, len(context) - 1 :]
    return logits.double().log_softmax(-1)


def answer_table(
    model: Any, inputs: dict[str, Tensor], question: int, answer: list[int], start: int | None = None
) -> Tensor:
    """log p(y_t | x, z, y_<t) of one answer under each passage, (K, T)."""
    first = model.rag.special_tokens.decoder_start if start is None else start
    rows = []
    for passage in range(inputs["doc_scores"].shape[1]):
        steps = next_token_log_probs(model, context_of(inputs, question, passage), [first, *answer[:-1]])
        rows.append(steps[torch.arange(len(answer)), answer])
    return torch.stack(rows)


def log_prior(inputs: dict[str, Tensor], question: int) -> Tensor:
    """log p(z|x), (K,)."""
    weights = inputs["doc_scores"][question].double().exp()
    return (weights / weights.sum()).log()


def log_likelihood(formulation: str, table: Tensor, prior: Tensor) -> float:
    """log p(y|x) of one answer from (K, T) and (K,)."""
    n_docs, length = table.shape
    if formulation == "sequence":
        total = sum(math.exp(float(prior[k]) + float(table[k].sum())) for k in range(n_docs))
        return math.log(total)
    return sum(
        math.log(sum(math.exp(float(prior[k]) + float(table[k, t])) for k in range(n_docs)))
        for t in range(length)
    )


def answer_log_likelihood(
    formulation: str,
    model: Any,
    inputs: dict[str, Tensor],
    question: int,
    answer: list[int],
    start: int | None = None,
) -> float:
    """log p(y|x) of one answer to one question."""
    table = answer_table(model, inputs, question, answer, start)
    return log_likelihood(formulation, table, log_prior(inputs, question))


def greedy_token_answer(model: Any, inputs: dict[str, Tensor], question: int, steps: int) -> list[int]:
    """RAG-Token's greedy answer with its start token."""
    prior = log_prior(inputs, question)
    answer = [model.rag.special_tokens.decoder_start]
    for _ in range(steps):
        mixture = sum(
            (prior[k] + next_token_log_probs(model, context_of(inputs, question, k), answer)[-1]).exp()
            for k in range(len(prior))
        )
        answer.append(int(mixture.argmax()))
        if answer[-1] == model.rag.special_tokens.eos:
            break
    return answer


def proposals(
    model: Any, inputs: dict[str, Tensor], question: int, passage: int, beams: int, steps: int
) -> list[tuple[int, ...]]:
    """What the plain generator's beam search finds for one context, without start token and padding."""
    context = context_of(inputs, question, passage)[None]
    sequences = model.generator.generate(
        context,
        attention_mask=torch.ones_like(context),
        num_beams=beams,
        num_return_sequences=beams,
        max_new_tokens=steps,
        pad_token_id=model.rag.special_tokens.pad_or_eos,
        suppress_tokens=padding_of(model),
    )
    skip = 1 if model.generator.config.is_encoder_decoder else context.shape[1]
    return [_until_end(row[skip:], model) for row in sequences.tolist()]


def padding_of(model: Any) -> list[int] | None:
    """The padding token, for ``suppress_tokens``: said by a random model, it looks like padding."""
    pad = model.rag.special_tokens.pad
    return None if pad is None or pad == model.rag.special_tokens.eos else [pad]


def _until_end(tokens: list[int], model: Any) -> tuple[int, ...]:
    if model.rag.special_tokens.eos in tokens:
        return tuple(tokens[: tokens.index(model.rag.special_tokens.eos) + 1])
    while tokens and tokens[-1] == model.rag.special_tokens.pad_or_eos:
        tokens = tokens[:-1]
    return tuple(tokens)


def ranked_answers(
    model: Any, inputs: dict[str, Tensor], question: int, beams: int, steps: int
) -> dict[str, list[tuple[float, tuple[int, ...]]]]:
    """RAG-Sequence decoding as section 2.5 of the paper says it, thorough and fast, each best first."""
    n_docs = inputs["doc_scores"].shape[1]
    proposed = [proposals(model, inputs, question, k, beams, steps) for k in range(n_docs)]
    prior = log_prior(inputs, question)
    thorough, fast = [], []
    for answer in dict.fromkeys(answer for some in proposed for answer in some):
        joint = prior + answer_table(model, inputs, question, list(answer)).sum(1)
        thorough.append((float(joint.logsumexp(0)), answer))
        joint = joint[[answer in proposed[k] for k in range(n_docs)]]
        fast.append((float(joint.logsumexp(0)), answer))
    return {"thorough": sorted(thorough, reverse=True), "fast": sorted(fast, reverse=True)}
