"""The equations against direct, slow evaluations: loops over probabilities, enumerations of all answers."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ragweave import marginalization as m
from ragweave.errors import ShapeError
from ragweave.modeling.parts import IGNORE_INDEX
from tests.support import models
from tests.support.models import FORMULATIONS, rag_model

pytestmark = pytest.mark.usefixtures("quiet_transformers")

quick = settings(max_examples=40, deadline=None)
NLL = {"token": m.token_nll, "sequence": m.sequence_nll}
LIKELIHOOD = {"token": m.token_log_likelihood, "sequence": m.sequence_log_likelihood}


class Case:
    """Random logits (B, K, T, V), scores (B, K), targets and which of them count (B, T), in float64."""

    def __init__(self, seed: int, b: int, k: int, t: int, v: int, spread: float = 3.0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.logits = spread * torch.randn(b, k, t, v, generator=generator, dtype=torch.float64)
        self.doc_scores = 2 * torch.randn(b, k, generator=generator, dtype=torch.float64)
        self.targets = torch.randint(0, v, (b, t), generator=generator)
        self.scored = torch.rand(b, t, generator=generator) < 0.8
        self.scored[:, 0] = True
        self.targets = self.targets.masked_fill(~self.scored, IGNORE_INDEX)

    def nll(self, formulation: str, epsilon: float = 0.0) -> Tensor:
        return NLL[formulation](self.logits, self.doc_scores, self.targets, self.scored, epsilon)


@st.composite
def cases(draw: st.DrawFn, min_docs: int = 1) -> Case:
    sizes = [draw(st.integers(1, 3)), draw(st.integers(min_docs, 4)), draw(st.integers(1, 5))]
    return Case(draw(st.integers(0, 10_000)), *sizes, draw(st.integers(2, 7)))


formulations = pytest.mark.parametrize("formulation", FORMULATIONS)


def direct_probability(formulation: str, case: Case, question: int) -> float:
    """p(y|x) in plain Python, from probabilities instead of logarithms."""
    n_docs = case.logits.shape[1]
    weights = [math.exp(float(score)) for score in case.doc_scores[question]]
    prior = [weight / sum(weights) for weight in weights]
    steps = [t for t in range(case.logits.shape[2]) if case.scored[question, t]]

    def p(k: int, t: int) -> float:
        exponentials = case.logits[question, k, t].exp()
        return float(exponentials[case.targets[question, t]] / exponentials.sum())

    if formulation == "sequence":
        return sum(prior[k] * math.prod(p(k, t) for t in steps) for k in range(n_docs))
    return math.prod(sum(prior[k] * p(k, t) for k in range(n_docs)) for t in steps)


@formulations
@quick
@given(case=cases())
def test_loss_is_the_equation_of_the_paper(formulation: str, case: Case) -> None:
    expected = [-math.log(direct_probability(formulation, case, b)) for b in range(len(case.targets))]
    assert case.nll(formulation).tolist() == pytest.approx(expected, rel=1e-9)


@quick
@given(case=cases())
def test_mixture_of_rag_token_is_a_distribution_and_the_sum_over_passages(case: Case) -> None:
    marginals = m.token_log_marginals(case.logits, case.doc_scores)
    assert torch.allclose(marginals.exp().sum(-1), torch.ones(()).double())
    prior = case.doc_scores.softmax(-1)
    expected = (prior[:, :, None, None] * case.logits.softmax(-1)).sum(1)
    assert torch.allclose(marginals.exp(), expected)


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("n_docs", [1, 3])
def test_the_vocabulary_may_be_cut_anywhere(
    n_docs: int, gradient: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums without gradient go over slices of the vocabulary; those with gradient over all of it at once."""
    logits, scores = torch.randn(2, n_docs, 4, 23), torch.randn(2, n_docs)
    logits[0, 0, 0, 3:] = float("-inf")
    expected = (scores.softmax(-1)[:, :, None, None] * logits.softmax(-1)).sum(1)
    targets = torch.randint(0, 23, (2, 4))
    for most in (1, 40, 100, 10**6):
        monkeypatch.setattr(m, "SLICE", {"cpu": most})
        marginals = m.token_log_marginals(logits.requires_grad_(gradient), scores)
        assert torch.allclose(marginals.exp(), expected, atol=1e-6)
        chosen = m.target_log_probs(logits, targets)
        again = logits.log_softmax(-1).gather(-1, targets[:, None, :, None].expand(-1, n_docs, -1, 1))
        assert torch.allclose(chosen, again.squeeze(-1), atol=1e-6)


# Sums over all answers.


def all_answers(vocabulary: int, length: int, end: int | None) -> list[tuple[int, ...]]:
    """Every answer of at most ``length`` tokens: of exactly so many, or shorter and closed by ``end``."""
    if end is None:
        return list(itertools.product(range(vocabulary), repeat=length))
    answers = []
    for tokens in itertools.product(range(vocabulary), repeat=length):
        cut = tokens.index(end) + 1 if end in tokens else length
        answers.append(tokens[:cut])
    return list(dict.fromkeys(answers))


@pytest.mark.parametrize("end", [None, 2], ids=["fixed length", "ended by EOS"])
@pytest.mark.parametrize("generator", ["bart", "t5", "llama"])
@formulations
def test_probabilities_of_all_answers_sum_to_one(formulation: str, generator: str, end: int | None) -> None:
    vocabulary, length, n_docs = 5, 3, 3
    model = rag_model(models.CLASSES[formulation], generator, vocab_size=vocabulary).double()
    answers = all_answers(vocabulary, length, end)
    assert len(answers) == (125 if end is None else 1 + 4 + 64 + 16)
    given_ = models.contexts(1, n_docs, 5, vocab_size=vocabulary)
    given_["doc_scores"] = given_["doc_scores"].double()
    targets = torch.tensor([[*answer, *[0] * (length - len(answer))] for answer in answers])
    scored = torch.tensor([[t < len(answer) for t in range(length)] for answer in answers])
    read = model.shift_tokens_right(targets)
    with torch.no_grad():  # all answers are rows of one question: (B*K*R, T, V)
        logits = model.rag(**given_, decoder_input_ids=read).logits
    logits = logits.view(n_docs, len(answers), length, vocabulary).transpose(0, 1)  # (R, K, T, V)
    table = m.target_log_probs(logits, targets)
    log_p = LIKELIHOOD[formulation](table, scored, given_["doc_scores"].expand(len(answers), -1))
    assert log_p.exp().sum().item() == pytest.approx(1.0, abs=1e-12)
    assert log_p.dtype == torch.float64


@formulations
def test_probabilities_of_all_answers_sum_to_one_through_the_loss(formulation: str) -> None:
    """The same through the public interface, from labels to loss; without a pad token, every id is scored."""
    model = rag_model(models.CLASSES[formulation], "gpt2", vocab_size=5, n_docs=2).double()
    answers = torch.tensor(all_answers(5, 3, None))
    assert model.rag.special_tokens.pad is None
    one = models.contexts(1, 2, 5, vocab_size=5)
    many = {name: value.repeat(len(answers), 1) for name, value in one.items()}
    many["doc_scores"] = many["doc_scores"].double()
    with torch.no_grad():
        loss = model(**many, labels=answers).loss
    assert (-loss).exp().sum().item() == pytest.approx(1.0, abs=1e-12)


# Symmetries and limits.


@formulations
@quick
@given(case=cases(), seed=st.integers(0, 100), epsilon=st.sampled_from([0.0, 0.1]))
def test_order_of_passages_is_irrelevant(formulation: str, case: Case, seed: int, epsilon: float) -> None:
    before = case.nll(formulation, epsilon)
    order = torch.randperm(case.logits.shape[1], generator=torch.Generator().manual_seed(seed))
    case.logits, case.doc_scores = case.logits[:, order], case.doc_scores[:, order]
    assert torch.allclose(case.nll(formulation, epsilon), before)


@formulations
@quick
@given(case=cases(), shift=st.floats(-50, 50))
def test_a_constant_added_to_all_scores_is_irrelevant(formulation: str, case: Case, shift: float) -> None:
    before = case.nll(formulation)
    case.doc_scores = case.doc_scores + shift
    assert torch.allclose(case.nll(formulation), before)


@formulations
@quick
@given(case=cases(), epsilon=st.sampled_from([0.0, 0.2]))
def test_one_passage_gives_the_plain_generator(formulation: str, case: Case, epsilon: float) -> None:
    case.logits, case.doc_scores = case.logits[:, :1], case.doc_scores[:, :1]
    log_probs = case.logits[:, 0].log_softmax(-1)  # (B, T, V)
    chosen = log_probs.gather(-1, case.targets.clamp(min=0)[..., None]).squeeze(-1)
    nll = -(chosen * case.scored).sum(-1)
    smooth = -(log_probs.mean(-1) * case.scored).sum(-1)
    assert torch.allclose(case.nll(formulation, epsilon), (1 - epsilon) * nll + epsilon * smooth)


@formulations
@quick
@given(case=cases())
def test_equal_passages_give_the_plain_generator(formulation: str, case: Case) -> None:
    case.logits = case.logits[:, :1].expand_as(case.logits)
    several = case.nll(formulation)
    case.logits, case.doc_scores = case.logits[:, :1], case.doc_scores[:, :1]
    assert torch.allclose(several, case.nll(formulation))


@quick
@given(case=cases())
def test_formulations_agree_on_answers_of_one_token(case: Case) -> None:
    case.scored[:, 1:] = False
    assert torch.allclose(case.nll("token"), case.nll("sequence"))


@formulations
@quick
@given(case=cases(), epsilon=st.sampled_from([0.0, 0.1]), size=st.sampled_from([1.0, 1e4]))
def test_a_passage_that_is_not_there_changes_nothing(
    formulation: str, case: Case, epsilon: float, size: float
) -> None:
    expected = case.nll(formulation, epsilon)
    extra = size * torch.randn(case.logits[:, :1].shape, generator=torch.Generator().manual_seed(0))
    case.logits = torch.cat([case.logits, extra.double()], dim=1).requires_grad_()
    nothing = torch.full_like(case.doc_scores[:, :1], -torch.inf)
    case.doc_scores = torch.cat([case.doc_scores, nothing], dim=1).requires_grad_()
    loss = case.nll(formulation, epsilon)
    assert torch.allclose(loss, expected)

    loss.sum().backward()
    assert case.logits.grad is not None and case.doc_scores.grad is not None
    assert case.logits.grad.isfinite().all()
    assert case.doc_scores.grad.isfinite().all()
    assert (case.logits.grad[:, -1] == 0).all()
    assert (case.doc_scores.grad[:, -1] == 0).all()
    table = m.target_log_probs(case.logits, case.targets)
    assert (m.sequence_posterior(table, case.scored, case.doc_scores)[:, -1] == 0).all()
    assert (m.token_posteriors(table, case.doc_scores)[:, -1] == 0).all()


@formulations
@quick
@given(case=cases())
def test_targets_that_are_not_scored_change_nothing(formulation: str, case: Case) -> None:
    before = case.nll(formulation, 0.1)
    case.logits = torch.where(case.scored[:, None, :, None], case.logits, 7.0 * case.logits + 1.0)
    case.targets = torch.where(case.scored, case.targets, 0)
    assert torch.allclose(case.nll(formulation, 0.1), before)


@formulations
@quick
@given(case=cases(min_docs=2))
def test_gradient_of_the_scores_is_prior_minus_posterior(formulation: str, case: Case) -> None:
    """d(-log p(y|x)) / d score = p(z|x) - p(z|x,y), summed over tokens for RAG-Token."""
    case.doc_scores.requires_grad_()
    case.nll(formulation).sum().backward()
    scores = case.doc_scores.detach()
    table = m.target_log_probs(case.logits, case.targets)
    if formulation == "sequence":
        expected = scores.softmax(-1) - m.sequence_posterior(table, case.scored, scores)
    else:
        difference = scores.softmax(-1)[..., None] - m.token_posteriors(table, scores)  # (B, K, T)
        expected = (difference * case.scored[:, None]).sum(-1)
    assert case.doc_scores.grad is not None
    assert torch.allclose(case.doc_scores.grad, expected)


# Label smoothing.


@quick
@given(case=cases(), epsilon=st.floats(0.01, 0.9))
def test_label_smoothing_of_rag_token_by_direct_evaluation(case: Case, epsilon: float) -> None:
    """(1-e) times the loss, plus e times the mean loss over all tokens of the vocabulary."""
    b, _, t, v = case.logits.shape
    mixture = (case.doc_scores.softmax(-1)[:, :, None, None] * case.logits.softmax(-1)).sum(1)  # (B, T, V)
    for question in range(b):
        steps = [step for step in range(t) if case.scored[question, step]]
        nll = -sum(float(mixture[question, s, case.targets[question, s]].log()) for s in steps)
        smooth = -sum(float(mixture[question, s, w].log()) for s in steps for w in range(v)) / v
        assert case.nll("token", epsilon)[question].item() == pytest.approx(
            (1 - epsilon) * nll + epsilon * smooth
        )


@quick
@given(case=cases(), epsilon=st.floats(0.01, 0.9))
def test_label_smoothing_of_rag_sequence_by_direct_evaluation(case: Case, epsilon: float) -> None:
    """The smoothing term sums log-probabilities over the vocabulary, the prior too, before passages."""
    b, k, t, v = case.logits.shape
    log_p = case.logits.log_softmax(-1)
    prior = case.doc_scores.log_softmax(-1)
    for question in range(b):
        steps = [step for step in range(t) if case.scored[question, step]]
        nll = -math.log(direct_probability("sequence", case, question))
        sums = [
            v * prior[question, z] + sum(log_p[question, z, s, w] for s in steps for w in range(v))
            for z in range(k)
        ]
        smooth = -torch.stack([torch.as_tensor(value) for value in sums]).logsumexp(0).item()
        assert case.nll("sequence", epsilon)[question].item() == pytest.approx(
            (1 - epsilon) * nll + epsilon / v * smooth
        )


# Posteriors.


@quick
@given(case=cases())
def test_posteriors_are_bayes_rule_by_enumeration(case: Case) -> None:
    table = m.target_log_probs(case.logits, case.targets)
    whole = m.sequence_posterior(table, case.scored, case.doc_scores)
    tokens = m.token_posteriors(table, case.doc_scores)
    b, k, t, _ = case.logits.shape
    prior, p = case.doc_scores.softmax(-1), case.logits.softmax(-1)
    for question in range(b):
        steps = [step for step in range(t) if case.scored[question, step]]
        chosen = [
            [float(p[question, z, s, case.targets[question, s]]) if s in steps else 1.0 for s in range(t)]
            for z in range(k)
        ]
        joint = [float(prior[question, z]) * math.prod(chosen[z]) for z in range(k)]
        assert whole[question].tolist() == pytest.approx([value / sum(joint) for value in joint])
        for s in steps:
            at = [float(prior[question, z]) * chosen[z][s] for z in range(k)]
            assert tokens[question, :, s].tolist() == pytest.approx([value / sum(at) for value in at])
    ones = torch.ones(()).double()
    assert torch.allclose(whole.sum(1), ones)
    assert torch.allclose(tokens.sum(1), ones)
    share = m.answer_posterior(tokens, case.scored)
    assert torch.allclose(share.sum(1), ones)
    mean = (tokens * case.scored[:, None]).sum(-1) / case.scored.sum(-1)[:, None]
    assert torch.allclose(share, mean)


@quick
@given(case=cases())
def test_prefix_posteriors_are_bayes_rule_on_the_tokens_so_far(case: Case) -> None:
    """p(z | x, y_<=t) of RAG-Sequence: that of the answer cut after token t."""
    table = m.target_log_probs(case.logits, case.targets)
    running = m.prefix_posteriors(table, case.scored, case.doc_scores)  # (B, K, T)
    for t in range(case.targets.shape[1]):
        cut = case.scored & (torch.arange(case.targets.shape[1]) <= t)
        assert torch.allclose(running[:, :, t], m.sequence_posterior(table, cut, case.doc_scores))
    assert torch.allclose(running[:, :, -1], m.sequence_posterior(table, case.scored, case.doc_scores))


def test_share_of_an_empty_answer_is_zero_and_not_nan() -> None:
    shares = m.answer_posterior(torch.full((1, 2, 3), 0.5), torch.zeros(1, 3, dtype=torch.bool))
    assert shares.tolist() == [[0.0, 0.0]]


# Precision.


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
@formulations
def test_half_precision_is_summed_in_float32(formulation: str, epsilon: float, dtype: torch.dtype) -> None:
    """As exact as the rounded logits allow; the sum of logits over the vocabulary exceeds half precision."""
    case = Case(0, 2, 3, 4, 3000)
    case.logits, case.doc_scores = (case.logits + 40).to(dtype), case.doc_scores.to(dtype)
    got = case.nll(formulation, epsilon)
    assert got.dtype == torch.float32
    case.logits, case.doc_scores = case.logits.double(), case.doc_scores.double()
    assert got.tolist() == pytest.approx(case.nll(formulation, epsilon).tolist(), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_mixture_and_prior_of_half_precision_are_float32(dtype: torch.dtype) -> None:
    case = Case(0, 2, 3, 4, 9)
    logits, scores = case.logits.to(dtype), case.doc_scores.to(dtype)
    marginals = m.token_log_marginals(logits, scores)
    assert marginals.dtype == m.passage_log_probs(scores).dtype == torch.float32
    expected = m.token_log_marginals(logits.double(), scores.double())
    assert torch.allclose(marginals.double(), expected, atol=1e-5)


@formulations
def test_large_scores_and_logits_do_not_overflow(formulation: str) -> None:
    case = Case(1, 2, 3, 4, 5, spread=1e4)
    case.doc_scores = case.doc_scores * 1e4
    assert case.nll(formulation).isfinite().all()


# Which targets count.


def test_padding_and_ignored_targets_are_not_scored() -> None:
    targets = torch.tensor([[5, 1, 2, 1, -100], [-100, 7, 2, 0, 1]])
    scored = m.scored_positions(targets, pad_token_id=1, eos_token_id=2)
    assert scored.tolist() == [[True, False, True, False, False], [False, True, True, True, False]]


def test_without_padding_token_every_id_is_scored() -> None:
    targets = torch.tensor([[5, 2, 2, -100]])
    assert m.scored_positions(targets, None, 2).tolist() == [[True, True, True, False]]


def test_first_end_token_counts_where_it_is_the_padding_too() -> None:
    targets = torch.tensor([[5, 2, 2, 2], [2, 2, -100, 2], [5, 6, 7, 8]])
    scored = m.scored_positions(targets, pad_token_id=2, eos_token_id=2)
    assert scored.tolist() == [[True, True, False, False], [True, False, False, False], [True] * 4]


def test_rows_that_are_no_multiple_of_the_passages_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"seq_logits has 7 rows.*n_docs=3"):
        m.group_by_question(torch.zeros(7, 2, 4), 3)
    assert m.group_by_question(torch.zeros(6, 2, 4), 3).shape == (2, 3, 2, 4)
