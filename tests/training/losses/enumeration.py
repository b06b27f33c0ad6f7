"""The losses once more, for one question, in plain Python: loops over probabilities, no tensors, no masks.

Passages that are missing and tokens that do not count are left out of the lists, as if they had never existed.
"""

from __future__ import annotations

import math

from ragweave.training.losses import LossInputs


def passages(inputs: LossInputs, question: int) -> list[int]:
    return [k for k, score in enumerate(inputs.doc_scores[question].tolist()) if score > -math.inf]


def tokens(inputs: LossInputs, question: int) -> list[int]:
    return [t for t, counts in enumerate(inputs.scored[question].tolist()) if counts]


def softmax(logits: dict[int, float]) -> dict[int, float]:
    weights = {k: math.exp(logit) for k, logit in logits.items()}
    return {k: weight / sum(weights.values()) for k, weight in weights.items()}


def prior(inputs: LossInputs, question: int, temperature: float = 1.0) -> dict[int, float]:
    scores = inputs.doc_scores[question].tolist()
    return softmax({k: scores[k] / temperature for k in passages(inputs, question)})


def token_probability(inputs: LossInputs, question: int, k: int, t: int) -> float:
    return math.exp(float(inputs.token_log_probs[question, k, t]))


def answer_probability(inputs: LossInputs, question: int, k: int) -> float:
    return math.prod(token_probability(inputs, question, k, t) for t in tokens(inputs, question))


def mixture_probability(inputs: LossInputs, question: int, weights: dict[int, float]) -> float:
    """p(y|x) under weights of the passages that need not sum to one."""
    total = sum(weights.values())
    if inputs.formulation == "sequence":
        return sum(w / total * answer_probability(inputs, question, k) for k, w in weights.items())
    return math.prod(
        sum(w / total * token_probability(inputs, question, k, t) for k, w in weights.items())
        for t in tokens(inputs, question)
    )


def marginal(inputs: LossInputs, question: int, temperature: float) -> float:
    return -math.log(mixture_probability(inputs, question, prior(inputs, question, temperature)))


def emdr2(inputs: LossInputs, question: int, temperature: float) -> float:
    priors = prior(inputs, question, temperature)
    return -math.log(sum(priors[k] * answer_probability(inputs, question, k) for k in priors))


def pdist_target(inputs: LossInputs, question: int, temperature: float, tau: float) -> dict[int, float]:
    likelihoods = {
        k: answer_probability(inputs, question, k) ** (1 / tau) for k in passages(inputs, question)
    }
    return {k: likelihood / sum(likelihoods.values()) for k, likelihood in likelihoods.items()}


def loop_target(inputs: LossInputs, question: int, temperature: float, tau: float) -> dict[int, float]:
    priors = prior(inputs, question, temperature)
    if len(priors) == 1:
        return dict.fromkeys(priors, 1.0)
    worth = {}
    for k in priors:
        rest = {j: weight for j, weight in priors.items() if j != k}
        worth[k] = mixture_probability(inputs, question, rest) ** (-1 / tau)
    return {k: value / sum(worth.values()) for k, value in worth.items()}


def attention_weights(inputs: LossInputs, question: int) -> dict[int, float]:
    attention = inputs.attention
    assert attention is not None
    scores, norms = attention.scores[question].tolist(), attention.value_norms[question].tolist()
    mask = attention.mask[question].tolist()
    read = [(k, s) for k in passages(inputs, question) for s, present in enumerate(mask[k]) if present]
    pairs = [(h, t) for h in range(len(norms[0])) for t in tokens(inputs, question)]
    weights = dict.fromkeys(passages(inputs, question), 0.0)
    for h, t in pairs:
        total = sum(math.exp(scores[k][h][t][s]) for k, s in read)
        for k, s in read:
            weights[k] += math.exp(scores[k][h][t][s]) / total * norms[k][h][s] / len(pairs)
    return weights


def adist_target(inputs: LossInputs, question: int, temperature: float, tau: float) -> dict[int, float]:
    return softmax({k: weight / tau for k, weight in attention_weights(inputs, question).items()})


TARGETS = {"pdist": pdist_target, "loop": loop_target, "adist": adist_target}


def divergence(name: str, inputs: LossInputs, question: int, temperature: float, tau: float) -> float:
    """KL(target || p(z|x)) of a distillation loss."""
    priors = prior(inputs, question, temperature)
    target = TARGETS[name](inputs, question, temperature, tau)
    return sum(target[k] * math.log(target[k] / priors[k]) for k in priors)
