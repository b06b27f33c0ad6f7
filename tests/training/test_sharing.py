"""The folder of a model is shared on the hub with a card of its training, and read from it."""

from __future__ import annotations

import pytest

from ragweave import RagPipeline, RagTrainer
from ragweave.errors import ModelNotFoundError
from ragweave.training.sharing import from_hub, push_to_hub
from tests.support.hub import hub_stand_in
from tests.support.pipelines import save_rag_model
from tests.support.training import EXAMPLES, arguments, pipeline_of


@pytest.fixture(scope="module")
def rag_path(tmp_path_factory, tiny_encoder_path):
    return save_rag_model(tmp_path_factory.mktemp("model"), tiny_encoder_path, "token", "bart")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with hub_stand_in(tmp_path, monkeypatch) as stand_in:
        yield stand_in


def test_a_trained_model_is_pushed_and_answers_as_before(hub, rag_path, kb, tmp_path):
    folder = tmp_path / "trained"
    settings = arguments(folder, save_strategy="epoch", eval_strategy="epoch")
    trainer = RagTrainer(pipeline_of(rag_path, kb), settings, EXAMPLES, EXAMPLES[:2])
    trainer.train()
    trainer.save_model()
    revision = push_to_hub(folder, "me/rag", licence="mit", description="Capitals.")
    assert hub.created[0]["visibility"] == "private"
    card = hub.files("main")["README.md"].decode()
    assert card.startswith("---\nlicense: mit\nlibrary_name: ragweave\n")
    metrics = {k: v for row in trainer.state.log_history for k, v in row.items() if k.startswith("eval_")}
    expected = {"questions": 4, "global_step": 2, "epoch": 1.0, **metrics}
    assert all(f"| {key} | {value} |" in card for key, value in expected.items())
    assert "\nCapitals.\n" in card and '(from_hub("me/rag")' in card
    assert not any(name.startswith("checkpoint-") or name.endswith(".bin") for name in hub.files("main"))
    again = RagPipeline.from_pretrained(
        from_hub("me/rag", revision=revision), knowledge_base=kb, dtype="float32"
    )
    expected = pipeline_of(folder, kb)("Where is Lima?", max_new_tokens=4)
    answer = again("Where is Lima?", max_new_tokens=4)
    assert (answer.answer, answer.score) == (expected.answer, pytest.approx(expected.score, abs=1e-5))


def test_a_model_that_was_not_trained_here_has_no_record(hub, rag_path):
    push_to_hub(rag_path, "me/rag", licence="mit")
    assert (
        "| record | none: the model was not trained in this folder |"
        in hub.files("main")["README.md"].decode()
    )


def test_what_cannot_be_shared_is_said(rag_path, tmp_path):
    with pytest.raises(ModelNotFoundError, match="is not a folder of a RAG model"):
        push_to_hub(tmp_path, "me/rag", licence="mit")
    with pytest.raises(ModelNotFoundError, match="cannot be pushed to me/rag"):
        push_to_hub(rag_path, "me/rag", licence="mit")  # the tests ask no hub
    with pytest.raises(ModelNotFoundError, match="No RAG model could be loaded from 'me/rag'"):
        from_hub("me/rag")
