"""PCED: the next token by contrast with what the generator says without a passage (arXiv 2601.08670)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ragweave import RagPipeline
from ragweave.marginalization import PCED_GAMMA, contrast_strength
from ragweave.modeling.token import PcedForGeneration
from tests.support import direct, models
from tests.support.models import GENERATORS, rag_model
from tests.support.pipelines import build_knowledge_base, save_rag_model

pytestmark = pytest.mark.usefixtures("quiet_transformers")

QUESTIONS = ["Where is Lima?", "What is the capital of Kenya?", "Is Chile long?"]


def experts_and_amateur(**options: Any) -> dict[str, Tensor]:
    """Contexts of three passages and one without; the third passage is missing for the second question."""
    inputs = models.contexts(n_docs=4, **options)
    inputs["doc_scores"][:, -1] = float("-inf")
    inputs["doc_scores"][1, 2] = float("-inf")
    return inputs


def next_logits(model: Any, context: Tensor, answer: list[int]) -> list[float]:
    generator = model.generator
    with torch.no_grad():
        if generator.config.is_encoder_decoder:
            logits = generator(input_ids=context[None], decoder_input_ids=torch.tensor([answer])).logits
        else:
            logits = generator(input_ids=torch.cat([context, torch.tensor(answer[1:]).long()])[None]).logits
    return logits[0, -1].double().tolist()


def divergence(left: list[float], right: list[float]) -> float:
    p, q = (torch.tensor(logits).softmax(-1) for logits in (left, right))
    middle = (p + q) / 2
    return float(((p * (p / middle).log()).sum() + (q * (q / middle).log()).sum()) / 2)


def scores_of(model: Any, inputs: dict[str, Tensor], question: int, answer: list[int]) -> list[float]:
    """The rule of the paper, one passage and one token of the vocabulary after another."""
    scores = inputs["doc_scores"][question].double()
    prior = (scores.exp() / scores.exp().sum()).tolist()
    contexts = [direct.context_of(inputs, question, k) for k in range(len(prior))]
    first = [next_logits(model, context, answer[:1]) for context in contexts]
    logits = [next_logits(model, context, answer) for context in contexts]
    passages = [k for k in range(len(prior) - 1) if prior[k] > 0]
    beta = {k: divergence(first[k], first[-1]) for k in passages}
    relevance = {k: PCED_GAMMA * torch.tensor(prior[k]).log().item() for k in passages}
    return [
        max((1 + beta[k]) * logits[k][v] - beta[k] * logits[-1][v] + relevance[k] for k in passages)
        for v in range(len(logits[0]))
    ]


def greedy(model: Any, inputs: dict[str, Tensor], question: int, steps: int) -> list[int]:
    answer = [model.rag.special_tokens.decoder_start]
    for _ in range(steps):
        scores = scores_of(model, inputs, question, answer)
        answer.append(max(range(len(scores)), key=scores.__getitem__))
        if answer[-1] == model.rag.special_tokens.eos:
            break
    return answer


@pytest.mark.parametrize("generator", GENERATORS)
def test_greedy_answers_are_those_of_the_rule(generator: str) -> None:
    model, inputs = rag_model(PcedForGeneration, generator), experts_and_amateur()
    rows = model.generate(**inputs, max_new_tokens=6).tolist()
    for question, row in enumerate(rows):
        expected = greedy(model, inputs, question, 6)
        assert row[: len(expected)] == expected


@pytest.mark.parametrize("use_cache", [True, False])
def test_beams_are_ranked_by_the_normalised_scores_of_the_rule(use_cache: bool) -> None:
    model, inputs = rag_model(PcedForGeneration, "llama"), experts_and_amateur()
    output = model.generate(
        **inputs,
        max_new_tokens=4,
        num_beams=3,
        num_return_sequences=3,
        use_cache=use_cache,
        length_penalty=0.0,
        return_dict_in_generate=True,
        output_scores=True,
    )
    for row, score in zip(output.sequences.tolist(), output.sequences_scores.tolist(), strict=True):
        question = output.sequences.tolist().index(row) // 3
        eos, total = model.rag.special_tokens.eos, 0.0
        for position, token in enumerate(row[1:], start=1):
            log_probs = torch.tensor(scores_of(model, inputs, question, row[:position])).log_softmax(-1)
            total += float(log_probs[token])
            if token == eos:
                break
        assert score == pytest.approx(total, abs=1e-3)


def test_strength_is_none_for_a_passage_that_changes_nothing() -> None:
    logits = torch.randn(2, 3, 11)
    logits[:, 1] = logits[:, 2]
    strength = contrast_strength(logits)
    assert strength[:, 1].abs().max() < 1e-6
    assert (strength[:, 0] > 0.01).all()
    opposite = torch.tensor([[[40.0, -40.0], [-40.0, 40.0]]])
    assert contrast_strength(opposite).item() == pytest.approx(torch.tensor(2.0).log().item())


@pytest.fixture(scope="module", params=["bart", "llama"])
def mixture(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_encoder_path: Path
) -> RagPipeline:
    folder = save_rag_model(tmp_path_factory.mktemp("model"), tiny_encoder_path, "token", request.param)
    base = build_knowledge_base(tmp_path_factory.mktemp("base"), tiny_encoder_path)
    return RagPipeline.from_pretrained(folder, knowledge_base=base, dtype="float32")


def test_a_pipeline_reads_the_question_without_a_passage_too(mixture: RagPipeline) -> None:
    pipeline = mixture.with_formulation("pced")
    docs = pipeline.retrieve(QUESTIONS[:1], n_docs=2)
    contexts = [
        *zip(docs.docs[0]["title"], docs.docs[0]["text"], strict=True),
        ("", ""),
    ]
    ids, mask = pipeline.retriever.postprocess_docs(
        [{"title": [title for title, _ in contexts], "text": [text for _, text in contexts]}],
        QUESTIONS[:1],
        None,
        3,
        return_tensors="pt",
        padding="longest",
    )
    scores = torch.tensor([[*docs.scores[0].tolist(), float("-inf")]])
    inputs = {"context_input_ids": ids, "context_attention_mask": mask, "doc_scores": scores}
    expected = greedy(pipeline.model, inputs, 0, 6)
    answer = pipeline(QUESTIONS[0], n_docs=2, max_new_tokens=6, extractive=False)
    text = pipeline.retriever.generator_tokenizer.decode(expected, skip_special_tokens=True)
    assert answer.answer == text.strip()
    table = direct.log_likelihood(
        "token",
        direct.answer_table(pipeline.model, inputs, 0, expected[1:])[:2],
        direct.log_prior({"doc_scores": scores[:, :2]}, 0),
    )
    assert answer.score == pytest.approx(table, abs=1e-3)


def test_posteriors_are_of_the_passages_alone(mixture: RagPipeline) -> None:
    pipeline = mixture.with_formulation("pced")
    assert pipeline.formulation == "pced"
    assert pipeline.with_formulation("pced") is pipeline
    assert pipeline.with_formulation("token").formulation == "token"
    together = pipeline(QUESTIONS, batch_size=3, max_new_tokens=5)
    alone = [pipeline(question, max_new_tokens=5) for question in QUESTIONS]
    for answer, other in zip(together, alone, strict=True):
        assert answer.answer == other.answer
        assert sum(passage.posterior for passage in answer.passages) == pytest.approx(1, abs=1e-5)
        assert all(len(token.posteriors) == len(answer.passages) for token in answer.tokens)


def test_extractive_answers_are_words_of_the_passages(mixture: RagPipeline) -> None:
    for answer in mixture.with_formulation("pced")(QUESTIONS, max_new_tokens=5, extractive=True):
        assert any(answer.answer.lower() in f"{p.title} {p.text}".lower() for p in answer.passages)


def test_without_a_passage_there_is_no_answer(mixture: RagPipeline) -> None:
    assert not mixture.with_formulation("pced")(QUESTIONS[0], where="line > 9").answered


def test_a_single_context_has_nothing_to_contrast_with(mixture: RagPipeline) -> None:
    model, inputs = mixture.with_formulation("pced").model, models.contexts(n_docs=1)
    inputs = {
        name: values.clamp(max=model.config.generator.vocab_size - 1) for name, values in inputs.items()
    }
    expected = mixture.model.generate(**inputs, max_new_tokens=5)
    assert torch.equal(model.generate(**inputs, max_new_tokens=5), expected)
