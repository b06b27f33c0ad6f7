"""Training through the marginal likelihood: it learns, resumes, freezes, and what it saves can be used."""

from __future__ import annotations

import resource

import pytest
import torch
from transformers import TrainerCallback

from ragweave.errors import ConfigurationError, DataError, TrainingError
from ragweave.training.arguments import RagTrainingArguments
from ragweave.training.lora import add_adapter, merge_adapter
from ragweave.training.losses import LOSSES, LossInputs
from ragweave.training.trainer import RagTrainer
from ragweave.types import Example, SearchSettings
from tests.support.pipelines import save_rag_model
from tests.support.training import EXAMPLES, arguments, pipeline_of, weights, without_dropout


@pytest.fixture(scope="module", params=[("token", "bart"), ("sequence", "bart"), ("token", "llama")], ids=str)
def model_path(request, tmp_path_factory, tiny_encoder_path):
    return save_rag_model(tmp_path_factory.mktemp("model"), tiny_encoder_path, *request.param)


@pytest.fixture(scope="module")
def one_model_path(tmp_path_factory, tiny_encoder_path):
    """A model for what does not depend on the kind of model."""
    return save_rag_model(tmp_path_factory.mktemp("one-model"), tiny_encoder_path, "token", "bart")


def changed(before, after):
    return any(not torch.equal(before[name], after[name]) for name in before)


def test_a_trained_and_saved_model_gives_the_same_answers(tmp_path, model_path, kb):
    pipeline = pipeline_of(model_path, kb)
    before = {part: weights(pipeline.model, part) for part in ("question_encoder", "generator")}
    trainer = RagTrainer(pipeline, arguments(tmp_path, num_train_epochs=15), EXAMPLES, EXAMPLES)
    start = trainer.evaluate()
    trainer.train()
    end = trainer.evaluate()
    assert end["eval_loss"] < 0.5 * start["eval_loss"]
    assert {"eval_exact_match", "eval_f1", "eval_recall", "eval_top_mass", "eval_distinct"} <= end.keys()
    assert 0 < end["eval_top_mass"] <= 1
    for part, initial in before.items():
        assert changed(initial, weights(pipeline.model, part))
    trainer.save_model()
    again = pipeline_of(tmp_path, kb)
    questions = [example.question for example in EXAMPLES]
    first, second = pipeline(questions, max_new_tokens=4), again(questions, max_new_tokens=4)
    assert [answer.answer for answer in first] == [answer.answer for answer in second]
    assert [answer.score for answer in first] == pytest.approx([answer.score for answer in second], abs=1e-4)


def test_after_training_in_bfloat16_the_model_computes_as_the_saved_one_does(tmp_path, model_path, kb):
    pipeline = pipeline_of(model_path, kb)
    trainer = RagTrainer(pipeline, arguments(tmp_path, bf16=True), EXAMPLES)
    batch = trainer.data_collator(EXAMPLES)
    for _ in range(2):  # once more after it was restored
        trainer.train()
        trainer.save_model()
        again = pipeline_of(tmp_path, kb).model
        again.set_retriever(pipeline.retriever)
        losses = [model(**batch, reduce_loss=False).loss for model in (pipeline.model, again)]
        assert torch.allclose(*losses, atol=1e-5)


def test_the_loss_is_the_mean_of_the_questions_losses(tmp_path, model_path, kb):
    pipeline = pipeline_of(model_path, kb)
    trainer = RagTrainer(pipeline, arguments(tmp_path), EXAMPLES)
    batch = trainer.data_collator(EXAMPLES)
    loss = trainer.compute_loss(pipeline.model.eval(), batch)
    alone = [
        pipeline.model(**trainer.data_collator([example]), reduce_loss=True).loss for example in EXAMPLES
    ]
    assert loss.item() == pytest.approx(torch.stack(alone).mean().item(), rel=1e-4)


@pytest.mark.parametrize(
    ("frozen", "moving"), [("question-encoder", "generator"), ("generator", "question_encoder")]
)
def test_a_frozen_part_keeps_its_weights(tmp_path, one_model_path, kb, frozen, moving):
    pipeline = pipeline_of(one_model_path, kb)
    still = frozen.replace("-", "_")
    before = {part: weights(pipeline.model, part) for part in (still, moving)}
    RagTrainer(pipeline, arguments(tmp_path, freeze=frozen, num_train_epochs=2), EXAMPLES).train()
    assert not changed(before[still], weights(pipeline.model, still))
    assert changed(before[moving], weights(pipeline.model, moving))


@pytest.mark.parametrize("rate", [0.0, 0.01])
def test_the_encoder_has_its_learning_rate(tmp_path, one_model_path, kb, rate):
    pipeline = pipeline_of(one_model_path, kb)
    before = {part: weights(pipeline.model, part) for part in ("question_encoder", "generator")}
    trainer = RagTrainer(
        pipeline, arguments(tmp_path, num_train_epochs=1, retriever_learning_rate=rate), EXAMPLES
    )
    trainer.train()
    assert changed(before["generator"], weights(pipeline.model, "generator"))
    assert changed(before["question_encoder"], weights(pipeline.model, "question_encoder")) is (rate > 0)
    optimized = [weight for group in trainer.optimizer.param_groups for weight in group["params"]]
    assert len(optimized) == sum(weight.requires_grad for weight in pipeline.model.parameters())


def test_a_resumed_run_ends_like_an_uninterrupted_one(tmp_path, one_model_path, kb):
    uninterrupted = pipeline_of(one_model_path, kb)
    RagTrainer(uninterrupted, arguments(tmp_path / "uninterrupted", num_train_epochs=4), EXAMPLES).train()
    saving = {"save_strategy": "steps", "save_steps": 3}
    first = RagTrainer(
        pipeline_of(one_model_path, kb), arguments(tmp_path / "run", num_train_epochs=4, **saving), EXAMPLES
    )
    first.args.max_steps = 3  # stands for a power cut
    first.train()
    second = pipeline_of(one_model_path, kb)
    again = RagTrainer(second, arguments(tmp_path / "run", num_train_epochs=4, **saving), EXAMPLES)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 8
    expected = uninterrupted.model.state_dict()
    for name, weight in second.model.state_dict().items():
        assert torch.allclose(weight, expected[name], atol=1e-5), name


def test_an_adapter_learns_and_is_merged(tmp_path, model_path, kb):
    pipeline = pipeline_of(model_path, kb)
    before = {
        name.replace(".base_layer", ""): weight
        for name, weight in weights(pipeline.model, "generator").items()
    }
    add_adapter(pipeline.model.generator, rank=4)
    trainer = RagTrainer(pipeline, arguments(tmp_path, num_train_epochs=15), EXAMPLES, EXAMPLES)
    start = trainer.evaluate()["eval_loss"]
    trainer.train()
    end = trainer.evaluate()["eval_loss"]
    assert end < 0.8 * start
    merge_adapter(pipeline.model.generator)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(end, rel=1e-3)
    after = weights(pipeline.model, "generator")
    assert after.keys() == before.keys()
    trainer.save_model()
    assert (
        pipeline_of(tmp_path, kb)("Where is Lima?", max_new_tokens=4).answer
        == pipeline("Where is Lima?", max_new_tokens=4).answer
    )


@pytest.mark.parametrize("name", ["emdr2", "pdist", "loop"])
def test_retriever_losses_are_added_and_reach_the_question_encoder_only(tmp_path, model_path, kb, name):
    pipeline = pipeline_of(model_path, kb)
    plain = RagTrainer(pipeline, arguments(tmp_path), EXAMPLES)
    batch = plain.data_collator(EXAMPLES)
    model = pipeline.model.train()
    both = RagTrainer(pipeline, arguments(tmp_path, retriever_loss=name, retriever_loss_weight=2.0), EXAMPLES)

    def seeded(function, *args, **kwargs):
        torch.manual_seed(0)  # the same dropout each time
        return function(*args, **kwargs)

    loss = (seeded(both.compute_loss, model, batch) - seeded(plain.compute_loss, model, batch)) / 2
    output = seeded(model, **batch, reduce_loss=False)
    per_passage, scored = model.per_passage_log_probs(batch["labels"], output.logits, 2)
    formulation = "token" if type(model).__name__ == "RagTokenForGeneration" else "sequence"
    expected = LOSSES[name](LossInputs(output.doc_scores, per_passage, scored, formulation))
    assert loss.item() == pytest.approx(expected.item(), abs=1e-3)
    expected.backward()
    assert any(
        weight.grad is not None and weight.grad.any() for weight in model.question_encoder.parameters()
    )
    assert not any(weight.grad is not None and weight.grad.any() for weight in model.generator.parameters())


def test_log_probs_per_passage_sum_to_the_models_loss(model_path, kb, tmp_path):
    pipeline = pipeline_of(model_path, kb)
    model = pipeline.model
    batch = RagTrainer(pipeline, arguments(tmp_path), EXAMPLES).data_collator(EXAMPLES)
    with torch.no_grad():
        output = model.eval()(**batch, reduce_loss=False)
        log_probs, scored = model.per_passage_log_probs(batch["labels"], output.logits, 2)
    prior = output.doc_scores.log_softmax(-1)
    if type(model).__name__ == "RagTokenForGeneration":
        expected = -(torch.logsumexp(prior[..., None] + log_probs, 1) * scored).sum(-1)
    else:
        expected = -torch.logsumexp(prior + (log_probs * scored[:, None]).sum(-1), 1)
    assert torch.allclose(expected, output.loss.as_subclass(torch.Tensor), atol=1e-3)


def test_evaluation_measures_distinct_passages(tmp_path, one_model_path, kb):
    pipeline = pipeline_of(one_model_path, kb)
    pipeline.model.config.n_docs = 1
    many = [Example(str(n), f"Where is {n}?", ("Peru",)) for n in range(22)]
    for weight in pipeline.model.question_encoder.parameters():
        weight.data.zero_()  # every question becomes the same vector
    base = pipeline.knowledge_base
    trainer = RagTrainer(pipeline, arguments(tmp_path, n_docs=1, eval_max_new_tokens=1), many, many)
    trainer.pipeline.retriever.index = base.as_index()
    metrics = trainer.evaluate()
    assert metrics["eval_distinct"] == pytest.approx(1 / 3)


def test_accumulated_steps_are_one_step_of_all_their_questions(tmp_path, one_model_path, kb):
    ends = []
    for size, steps in ((4, 1), (2, 2)):
        pipeline = pipeline_of(one_model_path, kb)
        without_dropout(pipeline.model)
        more = {
            "per_device_train_batch_size": size,
            "gradient_accumulation_steps": steps,
            "num_train_epochs": 2,
            "optim": "sgd",
        }
        trainer = RagTrainer(pipeline, arguments(tmp_path / str(size), **more), EXAMPLES)
        trainer.train()
        ends.append((trainer.state.log_history[0]["loss"], pipeline.model.state_dict()))
    (full_loss, full), (accumulated_loss, accumulated) = ends
    assert accumulated_loss == pytest.approx(full_loss, rel=1e-4)
    for name, weight in full.items():
        assert torch.allclose(weight, accumulated[name], atol=1e-5), name


def test_checkpointed_activations_change_nothing(tmp_path, model_path, kb):
    losses = []
    for checkpointing in (False, True):
        pipeline = pipeline_of(model_path, kb)
        without_dropout(pipeline.model)
        # transformers before 5.23 has the older name only.
        names = ("activation_checkpointing", "gradient_checkpointing")
        name = next(name for name in names if hasattr(RagTrainingArguments, name))
        args = arguments(tmp_path, num_train_epochs=3, **{name: checkpointing})
        trainer = RagTrainer(pipeline, args, EXAMPLES)
        trainer.train()
        losses.append([row["loss"] for row in trainer.state.log_history if "loss" in row])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_cached_retrieval_changes_nothing(tmp_path, model_path, kb):
    losses = []
    for cached in (False, True):
        pipeline = pipeline_of(model_path, kb)
        without_dropout(pipeline.model)
        args = arguments(tmp_path, num_train_epochs=3, freeze="question-encoder", retrieve_ahead=cached)
        trainer = RagTrainer(pipeline, args, EXAMPLES)
        assert ("context_input_ids" in next(iter(trainer.get_train_dataloader()))) is cached
        trainer.train()
        losses.append([row["loss"] for row in trainer.state.log_history if "loss" in row])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_contexts_are_prepared_in_other_processes(tmp_path, one_model_path, kb):
    pipeline = pipeline_of(one_model_path, kb)
    args = arguments(tmp_path, freeze="question-encoder", dataloader_num_workers=2)
    batches = list(RagTrainer(pipeline, args, EXAMPLES).get_train_dataloader())
    assert [len(batch["doc_scores"]) for batch in batches] == [2, 2]


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path, one_model_path, kb):
    pipeline = pipeline_of(one_model_path, kb)
    trainer = RagTrainer(pipeline, arguments(tmp_path), EXAMPLES)
    with torch.no_grad():
        next(iter(pipeline.model.generator.parameters())).fill_(float("nan"))
    with pytest.raises(TrainingError, match="The loss of step 1 is nan"):
        trainer.train()


def test_a_checkpoint_that_cannot_be_written_leaves_nothing(tmp_path, one_model_path, kb):
    class FullDisk(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 1:
                resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    saving = {"save_strategy": "steps", "save_steps": 1, "num_train_epochs": 2}
    trainer = RagTrainer(
        pipeline_of(one_model_path, kb), arguments(tmp_path, **saving), EXAMPLES, callbacks=[FullDisk()]
    )
    try:
        with pytest.raises(TrainingError, match="The checkpoint of step 2 could not be written"):
            trainer.train()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-1"]
    again = RagTrainer(pipeline_of(one_model_path, kb), arguments(tmp_path, **saving), EXAMPLES)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 4


def test_a_run_does_not_resume_with_other_data(tmp_path, one_model_path, kb):
    RagTrainer(pipeline_of(one_model_path, kb), arguments(tmp_path), EXAMPLES).train()
    other = RagTrainer(pipeline_of(one_model_path, kb), arguments(tmp_path), EXAMPLES[:3])
    with pytest.raises(TrainingError, match=r"4 questions then, 3 now"):
        other.train(resume_from_checkpoint=True)
    empty = RagTrainer(pipeline_of(one_model_path, kb), arguments(tmp_path / "empty"), EXAMPLES)
    with pytest.raises(TrainingError, match="no run in"):
        empty.train(resume_from_checkpoint=True)


@pytest.mark.parametrize(
    ("answers", "message"), [(("long " * 80,), "tokens, and the limit is 64"), ((" ",), "no answer to learn")]
)
def test_unusable_answers_are_reported_before_training(tmp_path, model_path, kb, answers, message):
    wrong = Example("5", "Is it?", answers, ("b",), where="data.jsonl, line 5")
    with pytest.raises(DataError, match=f"data.jsonl, line 5.*{message}"):
        RagTrainer(pipeline_of(model_path, kb), arguments(tmp_path), [*EXAMPLES, wrong])


@pytest.mark.parametrize("evaluated", [False, True])
@pytest.mark.parametrize(
    ("question", "length", "message"),
    [
        ("river " * 90, 100, "but the encoder reads"),
        ("river river?", 3, "max_combined_length"),
        (" ", 100, "empty"),
    ],
)
def test_unusable_questions_are_reported_before_training(
    tmp_path, one_model_path, kb, question, length, message, evaluated
):
    wrong = Example("5", question, ("Peru",), ("b",), where="data.jsonl, line 5")
    pipeline = pipeline_of(one_model_path, kb)
    pipeline.retriever.config.max_combined_length = length
    data = (EXAMPLES[:0], [wrong]) if evaluated else ([wrong], None)
    with pytest.raises(DataError, match=f"data.jsonl, line 5.*{message}"):
        RagTrainer(pipeline, arguments(tmp_path), *data)


def test_a_bar_shows_how_many_questions_are_answered(tmp_path, one_model_path, kb, capsys):
    trainer = RagTrainer(pipeline_of(one_model_path, kb), arguments(tmp_path), EXAMPLES, EXAMPLES)
    trainer.evaluate()
    assert "Answering" not in capsys.readouterr().err
    trainer.args.disable_tqdm = False
    trainer.evaluate()
    assert "Answering: 100%" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("search", "message"),
    [
        (SearchSettings("bm25"), "would learn nothing"),
        (SearchSettings("hybrid", "rrf"), "would learn nothing"),
        (SearchSettings("hybrid", dense_weight=0.0), "would learn nothing"),
        (SearchSettings("hybrid", dense_weight=0.1), None),
    ],
)
def test_scores_without_gradient_are_rejected(tmp_path, one_model_path, kb, search, message):
    pipeline = pipeline_of(one_model_path, kb)
    pipeline.retriever.index = pipeline.knowledge_base.as_index(search)
    RagTrainer(pipeline, arguments(tmp_path, freeze="question-encoder"), EXAMPLES)
    pipeline.model.requires_grad_(True)
    if message is None:
        RagTrainer(pipeline, arguments(tmp_path), EXAMPLES)
        return
    with pytest.raises(ConfigurationError, match=message):
        RagTrainer(pipeline, arguments(tmp_path), EXAMPLES)
