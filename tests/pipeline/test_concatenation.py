"""All passages of a question in one prompt, the baseline beside the mixtures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ragweave import RagPipeline
from ragweave.errors import ConfigurationError
from ragweave.training.arguments import RagTrainingArguments
from ragweave.training.trainer import RagTrainer
from ragweave.types import Example
from tests.support.pipelines import build_knowledge_base, save_rag_model

pytestmark = pytest.mark.filterwarnings("ignore:A prompt of all passages")  # tiny models have few positions

QUESTIONS = ["Where is Lima?", "What is the capital of Kenya?", "Is Chile long?"]


@pytest.fixture(scope="module", params=[("token", "bart"), ("sequence", "llama")], ids=str)
def mixture(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_encoder_path: Path
) -> RagPipeline:
    folder = save_rag_model(tmp_path_factory.mktemp("model"), tiny_encoder_path, *request.param)
    base = build_knowledge_base(tmp_path_factory.mktemp("base"), tiny_encoder_path)
    return RagPipeline.from_pretrained(folder, knowledge_base=base, dtype="float32")


@pytest.fixture
def concat(mixture: RagPipeline) -> RagPipeline:
    return mixture.with_formulation("concat")


def test_the_score_is_the_likelihood_under_one_context(concat: RagPipeline) -> None:
    answer = concat(QUESTIONS[0], max_new_tokens=6, n_docs=3)
    doc = concat.retrieve(QUESTIONS[:1], n_docs=3).docs[0]
    sep, longest = concat.model.config.title_sep, concat.model.generator.config.max_position_embeddings
    longest -= 0 if concat.model.generator.config.is_encoder_decoder else 6
    titled = [f"{title}{sep}{text}" for title, text in zip(doc["title"], doc["text"], strict=True)]
    text = "\n\n".join(titled).removeprefix(f"{doc['title'][0]}{sep}")
    ids, mask = concat.retriever.postprocess_docs(
        [{"title": doc["title"][:1], "text": [text]}],
        QUESTIONS[:1],
        None,
        1,
        return_tensors="pt",
        max_length=longest,
    )
    given = {"context_input_ids": ids, "context_attention_mask": mask, "doc_scores": torch.zeros(1, 1)}
    sequence = concat.model.generate(**given, max_new_tokens=6)
    with torch.no_grad():
        loss = concat.model(**given, labels=sequence[:, 1:], decoder_input_ids=sequence[:, :-1]).loss
    assert answer.score == pytest.approx(-loss.item(), abs=1e-4)


def test_posteriors_are_what_the_retriever_said(concat: RagPipeline) -> None:
    for answer in concat(QUESTIONS, max_new_tokens=4, n_docs=3):
        priors = [passage.prior for passage in answer.passages]
        assert [passage.posterior for passage in answer.passages] == pytest.approx(priors, abs=1e-6)
        assert sum(priors) == pytest.approx(1, abs=1e-5)
        assert answer.tokens
        for token in answer.tokens:
            assert token.posteriors == pytest.approx(priors, abs=1e-6)


def test_of_one_passage_it_is_the_mixture(mixture: RagPipeline, concat: RagPipeline) -> None:
    one = [pipeline(QUESTIONS, max_new_tokens=5, n_docs=1) for pipeline in (mixture, concat)]
    assert [a.answer for a in one[0]] == [a.answer for a in one[1]]
    assert [a.score for a in one[0]] == pytest.approx([a.score for a in one[1]], abs=1e-4)


def test_batches_beams_and_extractive_answers(concat: RagPipeline) -> None:
    options = {"max_new_tokens": 5, "num_beams": 2, "extractive": True}
    together = concat(QUESTIONS, batch_size=3, **options)
    alone = [concat(question, **options) for question in QUESTIONS]
    assert [a.answer for a in together] == [a.answer for a in alone]
    assert all(any(a.answer.lower() in f"{p.title} {p.text}".lower() for p in a.passages) for a in together)


@pytest.mark.filterwarnings("default:A prompt of all passages")
def test_a_prompt_that_is_cut_is_said(concat: RagPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(concat.model.config, "max_combined_length", 20)
    with pytest.warns(UserWarning, match="its end may be cut off. Lower n_docs"):
        concat(QUESTIONS[0], max_new_tokens=4, n_docs=3)


def test_without_a_passage_there_is_no_answer(concat: RagPipeline) -> None:
    assert not concat(QUESTIONS[0], where="line > 9").answered


def test_formulations_share_their_networks(mixture: RagPipeline, concat: RagPipeline) -> None:
    assert concat.formulation == "concat"
    assert concat.with_formulation("concat") is concat
    back = concat.with_formulation(mixture.formulation)
    assert back.formulation == mixture.formulation
    assert back.model.generator is mixture.model.generator
    answers = [pipeline(QUESTIONS[0], max_new_tokens=5) for pipeline in (mixture, back)]
    assert answers[0].answer == answers[1].answer


def test_training_needs_a_mixture(concat: RagPipeline, tmp_path: Path) -> None:
    examples = [Example("1", QUESTIONS[0], ("Peru",))]
    with pytest.raises(ConfigurationError, match="Choose the formulation 'token' or 'sequence'"):
        RagTrainer(concat, RagTrainingArguments(output_dir=str(tmp_path)), train_dataset=examples)
