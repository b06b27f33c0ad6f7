"""The document encoder in training, and the index that follows it."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import time

import numpy as np
import pytest
import torch
from transformers import TrainerCallback
from typer.testing import CliRunner

from ragweave import KnowledgeBase
from ragweave.cli import app
from ragweave.encoders.text_encoder import TextEncoder
from ragweave.errors import EncoderMismatchError
from ragweave.training.index_refresh import IndexRefresh, load_document_encoder
from ragweave.training.trainer import RagTrainer
from tests.support.encoders import save_tiny_encoder
from tests.support.pipelines import save_rag_model
from tests.support.training import EXAMPLES, RefreshInCopy, RefreshInProcess, arguments, pipeline_of


@pytest.fixture(scope="module")
def model_path(tmp_path_factory, tiny_encoder_path):
    return save_rag_model(tmp_path_factory.mktemp("model"), tiny_encoder_path)


@pytest.fixture
def refresh_in_process(monkeypatch):
    """Run refreshes in this process, in tests of other things than the process."""
    monkeypatch.setattr(subprocess, "Popen", RefreshInProcess)


@pytest.fixture
def refresh_in_copy(monkeypatch):
    """Run refreshes in processes that need not import torch."""
    monkeypatch.setattr(subprocess, "Popen", RefreshInCopy)


def end_to_end(folder, **more):
    return arguments(folder, end_to_end=True, **more)


def test_recomputed_vectors_equal_those_of_the_index(tmp_path, model_path, kb):
    pipeline = pipeline_of(model_path, kb)
    plain = RagTrainer(pipeline, arguments(tmp_path), EXAMPLES)
    batch = plain.data_collator(EXAMPLES)
    expected = pipeline.model.eval()(**batch).doc_scores
    trainer = RagTrainer(pipeline, end_to_end(tmp_path), EXAMPLES)
    output = pipeline.model.eval()(**batch)
    assert torch.allclose(output.doc_scores, expected, atol=1e-4)
    output.loss.sum().backward()
    assert any(
        weight.grad is not None and weight.grad.any()
        for weight in trainer.document_encoder.model.parameters()
    )


def test_the_index_is_refreshed_and_the_saved_parts_match(tmp_path, model_path, kb, refresh_in_process):
    before = KnowledgeBase.open(kb)
    pipeline = pipeline_of(model_path, kb)
    args = end_to_end(tmp_path, refresh_steps=2, refresh_in_background=False, num_train_epochs=2)
    trainer = RagTrainer(pipeline, args, EXAMPLES, EXAMPLES)
    trainer.train()
    trainer.save_model()
    staleness = [row["index_staleness"] for row in trainer.state.log_history if "loss" in row]
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
    # Training from it again finds its encoder.
    assert base.manifest.encoder.name == str(tmp_path / "document-encoder")
    assert load_document_encoder(base, again.encoder).fingerprint == documents.fingerprint
    questions = [example.question for example in EXAMPLES]
    assert [answer.answer for answer in again(questions, max_new_tokens=3)] == [
        answer.answer for answer in pipeline(questions, max_new_tokens=3)
    ]


def test_a_killed_refresh_leaves_the_old_index_in_use(tmp_path, model_path, kb, refresh_in_copy):
    pipeline = pipeline_of(model_path, kb)
    seen = []

    class Kills(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            process = trainer.refresh._process
            if process is not None and not seen:
                process.kill()
                process.wait()
                seen.append(pipeline.retriever.index.base.path)

    args = end_to_end(tmp_path, refresh_steps=2, num_train_epochs=2)
    trainer = RagTrainer(pipeline, args, EXAMPLES, callbacks=[])
    trainer.add_callback(Kills())
    with pytest.warns(UserWarning, match="The index could not be refreshed with the encoder of step 2"):
        trainer.train()
    assert seen == [kb]
    assert trainer.refresh.failures == 1
    assert pipeline.retriever.index.base.path == tmp_path / "knowledge-base"  # the last one catches up


def test_a_failed_last_refresh_warns_and_the_model_can_be_saved(
    tmp_path, model_path, kb, tiny_encoder_path, refresh_in_copy
):
    changing, output = tmp_path / "its kb", tmp_path / "run"
    shutil.copytree(kb, changing)
    pipeline = pipeline_of(model_path, changing)
    trainer = RagTrainer(pipeline, end_to_end(output, refresh_steps=100), EXAMPLES)
    # The version that is searched goes, as 'ragweave compact' lets it.
    KnowledgeBase.open(changing).reembed(
        changing, encoder=TextEncoder.from_pretrained(tiny_encoder_path), keep=0
    )
    with pytest.warns(UserWarning, match="with the encoder of step 2 .*There is no version") as warned:
        trainer.train()
    trainer.save_model()
    assert trainer.refresh.failures == 1
    assert pipeline.retriever.index.base.path == changing
    message = next(
        text for text in map(str, (row.message for row in warned)) if "could not be refreshed" in text
    )
    command = shlex.split(re.search("bring it up to date with: (ragweave reembed .*)", message)[1])
    done = CliRunner().invoke(app, command[1:])
    assert done.exit_code == 0, done.output
    documents = TextEncoder.from_pretrained(output / "document-encoder")
    assert len(KnowledgeBase.open(output / "knowledge-base", encoder=documents)) == 3
    assert pipeline_of(output, output / "knowledge-base")("Where is Lima?", max_new_tokens=2).passages


@pytest.mark.parametrize("what", ["the snapshot", "the process"])
def test_a_refresh_that_cannot_start_warns_and_leaves_the_old_index_in_use(
    tmp_path, model_path, kb, monkeypatch, what
):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    pipeline = pipeline_of(model_path, kb)
    trainer = RagTrainer(pipeline, end_to_end(tmp_path, refresh_steps=1), EXAMPLES)
    if what == "the snapshot":
        monkeypatch.setattr(TextEncoder, "save_pretrained", full)
    else:
        monkeypatch.setattr(subprocess, "Popen", full)
    with pytest.warns(UserWarning, match="the encoder of step 1 .*No space left on device"):
        trainer.train()
    assert trainer.state.global_step == 2
    assert trainer.refresh.failures == 3  # two steps, and the last one
    assert pipeline.retriever.index.base.path == kb
    assert not (tmp_path / ".refresh").exists()


@pytest.mark.parametrize(
    ("variable", "torchrun", "expected"),
    [(None, False, "4"), ("3", False, "3"), (None, True, "4"), ("1", True, "4")],
)
def test_a_refresh_uses_half_of_the_cores(
    tmp_path, model_path, kb, monkeypatch, variable, torchrun, expected
):
    seen = []

    def popen(*args, env, **kwargs):
        seen.append(env["OMP_NUM_THREADS"])
        raise OSError("seen")

    pipeline = pipeline_of(model_path, kb)
    trainer = RagTrainer(pipeline, end_to_end(tmp_path), EXAMPLES)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    if variable is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    if torchrun:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setattr(subprocess, "Popen", popen)
    with pytest.warns(UserWarning, match="seen"):
        trainer.refresh.finish(1)
    assert seen == [expected]


def test_an_interrupted_run_leaves_no_files_of_its_refresh(tmp_path, model_path, kb):
    building = tmp_path / ".knowledge-base.building"
    processes = []

    class Interrupts(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            processes.append(trainer.refresh._process)
            while not building.exists() and processes[0].poll() is None:
                time.sleep(0.001)
            raise KeyboardInterrupt

    trainer = RagTrainer(pipeline_of(model_path, kb), end_to_end(tmp_path, refresh_steps=1), EXAMPLES)
    trainer.add_callback(Interrupts())
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert processes[0].returncode is not None
    assert not building.exists()
    assert not (tmp_path / ".refresh").exists()
    assert not [path for name in (".work", ".writer") for path in tmp_path.glob(f"knowledge-base/{name}")]


@pytest.mark.slow  # a cluster is started
def test_ray_workers_refresh_the_index(tmp_path, model_path, kb):
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
    expected = trainer.document_encoder.encode(
        [passage.text for passage in passages], titles=[passage.title for passage in passages]
    )
    assert np.allclose(base.vectors_of([0, 1, 2]), expected, atol=1e-4)
    assert not np.allclose(expected, before.vectors_of([0, 1, 2]), atol=1e-3)


def test_a_resumed_run_ends_like_an_uninterrupted_one(tmp_path, model_path, kb, refresh_in_process):
    settings = {"refresh_steps": 2, "refresh_in_background": False, "num_train_epochs": 2}
    saving = {"save_strategy": "steps", "save_steps": 3}
    uninterrupted = pipeline_of(model_path, kb)
    RagTrainer(uninterrupted, end_to_end(tmp_path / "uninterrupted", **settings), EXAMPLES).train()
    first = RagTrainer(
        pipeline_of(model_path, kb), end_to_end(tmp_path / "run", **settings, **saving), EXAMPLES
    )
    first.args.max_steps = 3  # stands for a power cut
    first.train()
    second = pipeline_of(model_path, kb)
    again = RagTrainer(second, end_to_end(tmp_path / "run", **settings, **saving), EXAMPLES)
    again.train(resume_from_checkpoint=True)
    expected = uninterrupted.model.state_dict()
    for name, weight in second.model.state_dict().items():
        assert torch.allclose(weight, expected[name], atol=1e-4), name


class Staleness(TrainerCallback):
    """Records the searched version and its staleness at every step."""

    def __init__(self, refresh: IndexRefresh):
        self.refresh = refresh
        self.seen = {}

    def on_step_begin(self, args, state, control, **kwargs):
        version = self.refresh.retriever.index.base.version
        self.seen[state.global_step] = (version, self.refresh.staleness(state.global_step))


def test_a_checkpoint_before_the_last_refreshes_resumes_exactly(tmp_path, model_path, kb, refresh_in_process):
    settings = {"refresh_steps": 2, "refresh_in_background": False, "max_steps": 8}
    saving = {"save_strategy": "steps", "save_steps": 5}

    def run(**more):
        pipeline = pipeline_of(model_path, kb)
        trainer = RagTrainer(pipeline, end_to_end(tmp_path, **settings, **saving), EXAMPLES * 4)
        recorder = Staleness(trainer.refresh)
        trainer.add_callback(recorder)
        trainer.train(**more)
        return pipeline.model.state_dict(), recorder.seen

    expected, uninterrupted = run()
    # Of the refreshes after steps 2, 4, 6 and 8, checkpoint-5 searched that of 4, and that of 6 was replaced last.
    assert KnowledgeBase.open(tmp_path / "knowledge-base").version_names() == ["000002", "000003", "000004"]
    weights, resumed = run(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    assert {step: staleness for step, (_, staleness) in resumed.items()} == {5: 1, 6: 0, 7: 1}
    assert resumed[5] == uninterrupted[5]
    for name, weight in weights.items():
        assert torch.allclose(weight, expected[name], atol=1e-4), name


def test_the_document_encoder_is_loaded_and_checked(tmp_path, tiny_encoder_path, kb):
    base = KnowledgeBase.open(kb)
    other = TextEncoder.from_pretrained(save_tiny_encoder(tmp_path / "other", seed=3))
    assert (
        load_document_encoder(base, other, str(tiny_encoder_path)).fingerprint
        == base.manifest.encoder.fingerprint
    )
    with pytest.raises(EncoderMismatchError, match="document-encoder"):
        load_document_encoder(base, other, str(tmp_path / "other"))
