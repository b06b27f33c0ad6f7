"""The document encoder in training, and the index that follows it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from ragweave import KnowledgeBase
from ragweave.encoding import TextEncoder
from ragweave.errors import EncoderMismatchError
from ragweave.training.documents import document_encoder
from ragweave.training.trainer import RagTrainer
from tests.support.encoders import save_tiny_encoder
from tests.support.pipelines import build_knowledge_base, save_rag_model
from tests.support.training import EXAMPLES, arguments, pipeline_of


@pytest.fixture(scope="module")
def kb(tmp_path_factory, tiny_encoder_path):
    return build_knowledge_base(tmp_path_factory.mktemp("base"), tiny_encoder_path)


@pytest.fixture(scope="module")
def model_path(tmp_path_factory, tiny_encoder_path):
    return save_rag_model(tmp_path_factory.mktemp("model"), tiny_encoder_path)


def end_to_end(folder, **more):
    return arguments(folder, end_to_end=True, **more)


def test_vectors_made_anew_are_those_of_the_index(tmp_path, model_path, kb):
    pipeline = pipeline_of(model_path, kb)
    plain = RagTrainer(pipeline, arguments(tmp_path), EXAMPLES)
    batch = plain.data_collator(EXAMPLES)
    expected = pipeline.model.eval()(**batch).doc_scores
    trainer = RagTrainer(pipeline, end_to_end(tmp_path), EXAMPLES)
    output = pipeline.model.eval()(**batch)
    assert torch.allclose(output.doc_scores, expected, atol=1e-4)
    output.loss.sum().backward()
    assert any(own.grad is not None and own.grad.any() for own in trainer.documents.model.parameters())


def test_the_index_follows_the_encoder_and_what_is_saved_goes_together(tmp_path, model_path, kb):
    before = KnowledgeBase.open(kb)
    pipeline = pipeline_of(model_path, kb)
    args = end_to_end(tmp_path, refresh_steps=2, refresh_in_background=False, num_train_epochs=2)
    trainer = RagTrainer(pipeline, args, EXAMPLES, EXAMPLES)
    trainer.train()
    trainer.save_model()
    staleness = [own["index_staleness"] for own in trainer.state.log_history if "loss" in own]
    assert max(staleness) <= 2
    assert min(staleness) < 2
    documents = TextEncoder.from_pretrained(tmp_path / "document-encoder")
    base = KnowledgeBase.open(tmp_path / "knowledge-base", encoder=documents)
    assert len(base) == len(before)
    assert not np.allclose(base.vectors_of([0, 1, 2]), before.vectors_of([0, 1, 2]), atol=1e-3)
    assert trainer.refresh.staleness(trainer.state.global_step) == 0
    assert KnowledgeBase.open(kb).version == before.version
    assert not (tmp_path / ".refresh").exists()
    again = pipeline_of(tmp_path, base)
    questions = [example.question for example in EXAMPLES]
    assert [own.answer for own in again(questions, max_new_tokens=3)] == [
        own.answer for own in pipeline(questions, max_new_tokens=3)
    ]


def test_a_refresh_that_is_killed_leaves_the_old_index_in_use(tmp_path, model_path, kb):
    pipeline = pipeline_of(model_path, kb)
    seen = []

    class Kills(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            running = trainer.refresh._running
            if running is not None and not seen:
                running.process.kill()
                running.process.wait()
                seen.append(pipeline.retriever.index.base.path)

    args = end_to_end(tmp_path, refresh_steps=2, num_train_epochs=2)
    trainer = RagTrainer(pipeline, args, EXAMPLES, callbacks=[])
    trainer.add_callback(Kills())
    with pytest.warns(UserWarning, match="The index could not be refreshed with the encoder of step 2"):
        trainer.train()
    assert seen == [kb]
    assert trainer.refresh.failures == 1
    assert pipeline.retriever.index.base.path == tmp_path / "knowledge-base"  # the last one catches up


@pytest.mark.slow  # a cluster is started
def test_workers_of_ray_refresh_the_index(tmp_path, model_path, kb):
    before = KnowledgeBase.open(kb)
    pipeline = pipeline_of(model_path, kb)
    args = end_to_end(tmp_path, refresh_in_background=False, refresh_engine="ray", refresh_workers=1)
    trainer = RagTrainer(pipeline, args, EXAMPLES)
    trainer.train()
    assert trainer.refresh.failures == 0
    assert trainer.refresh.staleness(trainer.state.global_step) == 0
    base = pipeline.retriever.index.base
    assert base.path == tmp_path / "knowledge-base"
    passages = [base.passages([row])[0] for row in range(3)]
    expected = trainer.documents.encode(
        [own.text for own in passages], titles=[own.title for own in passages]
    )
    assert np.allclose(base.vectors_of([0, 1, 2]), expected, atol=1e-4)
    assert not np.allclose(expected, before.vectors_of([0, 1, 2]), atol=1e-3)


def test_a_run_that_was_stopped_ends_where_an_uninterrupted_one_does(tmp_path, model_path, kb):
    settings = {"refresh_steps": 2, "refresh_in_background": False, "num_train_epochs": 2}
    saving = {"save_strategy": "steps", "save_steps": 3}
    whole = pipeline_of(model_path, kb)
    RagTrainer(whole, end_to_end(tmp_path / "whole", **settings), EXAMPLES).train()
    first = RagTrainer(
        pipeline_of(model_path, kb), end_to_end(tmp_path / "run", **settings, **saving), EXAMPLES
    )
    first.args.max_steps = 3  # the power goes
    first.train()
    second = pipeline_of(model_path, kb)
    again = RagTrainer(second, end_to_end(tmp_path / "run", **settings, **saving), EXAMPLES)
    again.train(resume_from_checkpoint=True)
    expected = whole.model.state_dict()
    for name, weight in second.model.state_dict().items():
        assert torch.allclose(weight, expected[name], atol=1e-4), name


def test_the_encoder_of_the_passages_is_found_or_named(tmp_path, tiny_encoder_path, kb):
    base = KnowledgeBase.open(kb)
    other = TextEncoder.from_pretrained(save_tiny_encoder(tmp_path / "other", seed=3))
    assert (
        document_encoder(base, other, str(tiny_encoder_path)).fingerprint == base.manifest.encoder.fingerprint
    )
    with pytest.raises(EncoderMismatchError, match="document-encoder"):
        document_encoder(base, other, str(tmp_path / "other"))
