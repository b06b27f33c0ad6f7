"""Training through the marginal likelihood: it learns, resumes, freezes, and what it saves can be used."""

from __future__ import annotations

import resource

import pytest
import torch
from transformers import TrainerCallback

from ragweave.errors import ConfigurationError, DataError, TrainingError
from ragweave.training.attention_recording import record_attention
from ragweave.training.collator import RagCollator
from ragweave.training.lora import add_adapter, merge_adapter
from ragweave.training.losses import LOSSES, LossInputs
from ragweave.training.trainer import RagTrainer
from ragweave.types import Example, SearchSettings
from tests.support.pipelines import build_knowledge_base, save_rag_model
from tests.support.training import EXAMPLES, arguments, pipeline_of, weights


@pytest.fixture(scope="module")
def kb(tmp_path_factory, tiny_encoder_path):
    return build_knowledge_base(tmp_path_factory.mktemp("base"), tiny_encoder_path)


@pytest.fixture(scope="module", params=[("token", "bart"), ("sequence", "bart"), ("token", "llama")], ids=str)
def model_path(request, tmp_path_factory, tiny_encoder_path):
    return save_rag_model(tmp_path_factory.mktemp("model"), tiny_encoder_path, *request.param)


def without_dropout(model):
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "attention_dropout", "activation_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def changed(before, after):
    return any(not torch.equal(before[name], after[name]) for name in before)


def test_it_learns_and_what_it_saves_answers_alike(tmp_path, model_path, kb):
    pipeline = pipeline_of(model_path, kb)
    before = {part: weights(pipeline.model, part) for part in ("question_encoder", "generator")}
    trainer = RagTrainer(pipeline, arguments(tmp_path, num_train_epochs=15), EXAMPLES, EXAMPLES)
    start = trainer.evaluate()
    trainer.train()
    end = trainer.evaluate()
    assert end["eval_loss"] < 0.5 * start["eval_loss"]
    assert {"eval_exact_match", "eval_f1", "eval_recall", "eval_top_mass", "eval_distinct"} <= end.keys()
    assert 0 < end["eval_top_mass"] <= 1
    for part, own in before.items():
        assert changed(own, weights(pipeline.model, part))
    trainer.save_model()
    again = pipeline_of(tmp_path, kb)
    questions = [example.question for example in EXAMPLES]
    first, second = pipeline(questions, max_new_tokens=4), again(questions, max_new_tokens=4)
    assert [answer.answer for answer in first] == [answer.answer for answer in second]
    assert [answer.score for answer in first] == pytest.approx([answer.score for answer in second], abs=1e-4)


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
def test_what_is_frozen_keeps_its_weights(tmp_path, model_path, kb, frozen, moving):
    pipeline = pipeline_of(model_path, kb)
    still = frozen.replace("-", "_")
    before = {part: weights(pipeline.model, part) for part in (still, moving)}
    RagTrainer(pipeline, arguments(tmp_path, freeze=frozen, num_train_epochs=2), EXAMPLES).train()
    assert not changed(before[still], weights(pipeline.model, still))
    assert changed(before[moving], weights(pipeline.model, moving))


@pytest.mark.parametrize("rate", [0.0, 0.01])
def test_the_encoder_has_a_learning_rate_of_its_own(tmp_path, model_path, kb, rate):
    pipeline = pipeline_of(model_path, kb)
    before = {part: weights(pipeline.model, part) for part in ("question_encoder", "generator")}
    trainer = RagTrainer(
        pipeline, arguments(tmp_path, num_train_epochs=1, retriever_learning_rate=rate), EXAMPLES
    )
    trainer.train()
    assert changed(before["generator"], weights(pipeline.model, "generator"))
    assert changed(before["question_encoder"], weights(pipeline.model, "question_encoder")) is (rate > 0)
    given = [weight for group in trainer.optimizer.param_groups for weight in group["params"]]
    assert len(given) == sum(weight.requires_grad for weight in pipeline.model.parameters())


def test_a_run_that_was_stopped_ends_where_an_uninterrupted_one_does(tmp_path, model_path, kb):
    whole = pipeline_of(model_path, kb)
    RagTrainer(whole, arguments(tmp_path / "whole", num_train_epochs=4), EXAMPLES).train()
    saving = {"save_strategy": "steps", "save_steps": 3}
    first = RagTrainer(
        pipeline_of(model_path, kb), arguments(tmp_path / "run", num_train_epochs=4, **saving), EXAMPLES
    )
    first.args.max_steps = 3  # the power goes
    first.train()
    second = pipeline_of(model_path, kb)
    again = RagTrainer(second, arguments(tmp_path / "run", num_train_epochs=4, **saving), EXAMPLES)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 8
    expected = whole.model.state_dict()
    for name, weight in second.model.state_dict().items():
        assert torch.allclose(weight, expected[name], atol=1e-5), name


def test_an_adapter_learns_and_is_merged(tmp_path, model_path, kb):
    pipeline = pipeline_of(model_path, kb)
    before = {
        name.replace(".base_layer", ""): own for name, own in weights(pipeline.model, "generator").items()
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
def test_losses_of_the_retriever_are_added_and_reach_the_question_encoder_alone(
    tmp_path, model_path, kb, name
):
    pipeline = pipeline_of(model_path, kb)
    plain = RagTrainer(pipeline, arguments(tmp_path), EXAMPLES)
    batch = plain.data_collator(EXAMPLES)
    model = pipeline.model.train()
    both = RagTrainer(pipeline, arguments(tmp_path, retriever_loss=name, retriever_loss_weight=2.0), EXAMPLES)

    def seeded(function, *given, **more):
        torch.manual_seed(0)  # the same dropout each time
        return function(*given, **more)

    own = (seeded(both.compute_loss, model, batch) - seeded(plain.compute_loss, model, batch)) / 2
    output = seeded(model, **batch, reduce_loss=False)
    per_passage, scored = model.per_passage_log_probs(batch["labels"], output.logits, 2)
    formulation = "token" if type(model).__name__ == "RagTokenForGeneration" else "sequence"
    expected = LOSSES[name](LossInputs(output.doc_scores, per_passage, scored, formulation))
    assert own.item() == pytest.approx(expected.item(), abs=1e-3)
    expected.backward()
    assert any(
        weight.grad is not None and weight.grad.any() for weight in model.question_encoder.parameters()
    )
    assert not any(weight.grad is not None and weight.grad.any() for weight in model.generator.parameters())


def test_what_passages_say_alone_sums_to_the_models_loss(model_path, kb, tmp_path):
    pipeline = pipeline_of(model_path, kb)
    model = pipeline.model
    batch = RagTrainer(pipeline, arguments(tmp_path), EXAMPLES).data_collator(EXAMPLES)
    with torch.no_grad():
        output = model.eval()(**batch, reduce_loss=False)
        own, scored = model.per_passage_log_probs(batch["labels"], output.logits, 2)
    prior = output.doc_scores.log_softmax(-1)
    if type(model).__name__ == "RagTokenForGeneration":
        expected = -(torch.logsumexp(prior[..., None] + own, 1) * scored).sum(-1)
    else:
        expected = -torch.logsumexp(prior + (own * scored[:, None]).sum(-1), 1)
    assert torch.allclose(expected, output.loss.as_subclass(torch.Tensor), atol=1e-3)


@pytest.mark.parametrize("kind", ["bart", "t5", "llama", "mistral", "gpt2"])
def test_attention_is_distilled(tmp_path, tmp_path_factory, tiny_encoder_path, kb, kind):
    path = save_rag_model(tmp_path_factory.mktemp("model"), tiny_encoder_path, "token", kind)
    pipeline = pipeline_of(path, kb)
    plain = RagTrainer(pipeline, arguments(tmp_path), EXAMPLES)
    batch = plain.data_collator(EXAMPLES)
    both = RagTrainer(pipeline, arguments(tmp_path, retriever_loss="adist"), EXAMPLES)
    model = pipeline.model.train()
    without_dropout(model)
    own = both.compute_loss(model, batch) - plain.compute_loss(model, batch)
    with record_attention(model.generator) as record:
        output = model(**batch, reduce_loss=False, output_retrieved=True)
    attention = record.by_passage(2, output.context_attention_mask)
    assert attention.value_norms.shape == (4, 2, attention.scores.shape[2], attention.scores.shape[4])
    # The attention weights that the generator itself shows are the softmax of what was recorded.
    scores = attention.scores.masked_fill(~attention.mask[:, :, None, None], float("-inf"))
    found, shown = scores.softmax(-1).nan_to_num(), weights_shown(model, batch, scores.shape[-1])
    assert torch.allclose(found, shown, atol=1e-5)
    per_passage, scored = model.per_passage_log_probs(batch["labels"], output.logits, 2)
    inputs = LossInputs(output.doc_scores, per_passage, scored, "token", attention)
    assert own.item() == pytest.approx(LOSSES["adist"](inputs).item(), abs=1e-4)


def weights_shown(model, batch, tokens):
    """The attention of answers to contexts, (4, 2, H, T, S), as the generator shows it; it sums to one, or zero."""
    before = model.generator.config._attn_implementation
    model.generator.set_attn_implementation("eager")
    causal = model.config.generator_is_causal
    output = model(**batch, reduce_loss=False, output_attentions=True, output_retrieved=True)
    model.generator.set_attn_implementation(before)
    if not causal:
        return torch.cat(output.generator_cross_attentions, 1).unflatten(0, (-1, 2))
    length = batch["labels"].shape[1]
    shown = torch.cat(output.generator_dec_attentions, 1)[:, :, -length:, :tokens].unflatten(0, (-1, 2))
    return (shown / shown.sum(-1, keepdim=True)).nan_to_num()


def test_attention_by_other_means_than_sdpa_is_refused(tmp_path, tmp_path_factory, tiny_encoder_path, kb):
    path = save_rag_model(tmp_path_factory.mktemp("model"), tiny_encoder_path, "token", "llama")
    pipeline = pipeline_of(path, kb)
    pipeline.model.generator.set_attn_implementation("eager")
    trainer = RagTrainer(pipeline, arguments(tmp_path, retriever_loss="adist"), EXAMPLES)
    with pytest.raises(ConfigurationError, match="sdpa attention, and LlamaForCausalLM has eager"):
        trainer.train()


def test_attention_that_cannot_be_seen_is_refused(tmp_path, tmp_path_factory, tiny_encoder_path, kb):
    path = save_rag_model(tmp_path_factory.mktemp("model"), tiny_encoder_path, "token", "llama")
    pipeline = pipeline_of(path, kb)
    trainer = RagTrainer(pipeline, arguments(tmp_path, retriever_loss="adist"), EXAMPLES)
    for module in pipeline.model.generator.modules():
        if hasattr(module, "q_proj"):  # a kind that does not ask transformers' interface how to attend
            module.forward = lambda hidden_states, **_: (hidden_states, None)
    with pytest.raises(ConfigurationError, match="Choose emdr2, pdist or loop"):
        trainer.train()


def test_collapse_is_told(tmp_path, model_path, kb):
    pipeline = pipeline_of(model_path, kb)
    pipeline.model.config.n_docs = 1
    many = [Example(str(n), f"Where is {n}?", ("Peru",)) for n in range(22)]
    for weight in pipeline.model.question_encoder.parameters():
        weight.data.zero_()  # every question becomes the same vector
    base = pipeline.knowledge_base
    trainer = RagTrainer(pipeline, arguments(tmp_path, n_docs=1, eval_max_new_tokens=1), many, many)
    trainer.pipeline.retriever.index = base.as_index()
    figures = trainer.evaluate()
    assert figures["eval_distinct"] == pytest.approx(1 / 3)


def test_the_collator_ends_answers_as_the_generator_does(model_path, kb):
    pipeline = pipeline_of(model_path, kb)
    tokenizer = pipeline.retriever.generator_tokenizer
    causal = pipeline.model.config.generator_is_causal
    batch = RagCollator(pipeline.retriever, causal=causal)(EXAMPLES)
    assert batch["labels"].shape[0] == batch["input_ids"].shape[0] == 4
    for row, example in zip(batch["labels"], EXAMPLES, strict=True):
        ids = [token for token in row.tolist() if token >= 0]
        assert ids[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(ids, skip_special_tokens=True).strip() == example.answers[0]
    with pytest.raises(DataError, match="no answer to learn"):
        RagCollator(pipeline.retriever, causal=causal)([Example("1", "a?", (), ("b",))])


def test_accumulated_steps_are_one_step_of_all_their_questions(tmp_path, model_path, kb):
    ends = []
    for size, accumulated in ((4, 1), (2, 2)):
        pipeline = pipeline_of(model_path, kb)
        without_dropout(pipeline.model)
        more = {
            "per_device_train_batch_size": size,
            "gradient_accumulation_steps": accumulated,
            "num_train_epochs": 2,
            "optim": "sgd",
        }
        trainer = RagTrainer(pipeline, arguments(tmp_path / str(size), **more), EXAMPLES)
        trainer.train()
        ends.append((trainer.state.log_history[0]["loss"], pipeline.model.state_dict()))
    (whole_loss, whole), (parts_loss, parts) = ends
    assert parts_loss == pytest.approx(whole_loss, rel=1e-4)
    for name, weight in whole.items():
        assert torch.allclose(weight, parts[name], atol=1e-5), name


def test_checkpointed_activations_change_nothing(tmp_path, model_path, kb):
    losses = []
    for checkpointing in (False, True):
        pipeline = pipeline_of(model_path, kb)
        without_dropout(pipeline.model)
        args = arguments(tmp_path, num_train_epochs=3, activation_checkpointing=checkpointing)
        trainer = RagTrainer(pipeline, args, EXAMPLES)
        trainer.train()
        losses.append([own["loss"] for own in trainer.state.log_history if "loss" in own])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_retrieving_ahead_changes_nothing(tmp_path, model_path, kb):
    losses = []
    for ahead in (False, True):
        pipeline = pipeline_of(model_path, kb)
        without_dropout(pipeline.model)
        args = arguments(tmp_path, num_train_epochs=3, freeze="question-encoder", retrieve_ahead=ahead)
        trainer = RagTrainer(pipeline, args, EXAMPLES)
        assert ("context_input_ids" in next(iter(trainer.get_train_dataloader()))) is ahead
        trainer.train()
        losses.append([own["loss"] for own in trainer.state.log_history if "loss" in own])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_contexts_are_made_in_other_processes(tmp_path, model_path, kb):
    pipeline = pipeline_of(model_path, kb)
    args = arguments(tmp_path, freeze="question-encoder", dataloader_num_workers=2)
    batches = list(RagTrainer(pipeline, args, EXAMPLES).get_train_dataloader())
    assert [len(batch["doc_scores"]) for batch in batches] == [2, 2]


def test_a_loss_that_is_no_number_ends_the_run(tmp_path, model_path, kb):
    pipeline = pipeline_of(model_path, kb)
    trainer = RagTrainer(pipeline, arguments(tmp_path), EXAMPLES)
    with torch.no_grad():
        next(iter(pipeline.model.generator.parameters())).fill_(float("nan"))
    with pytest.raises(TrainingError, match="The loss of step 1 is nan"):
        trainer.train()


def test_a_checkpoint_that_cannot_be_written_leaves_nothing(tmp_path, model_path, kb):
    class FullDisk(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 1:
                resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    saving = {"save_strategy": "steps", "save_steps": 1, "num_train_epochs": 2}
    trainer = RagTrainer(
        pipeline_of(model_path, kb), arguments(tmp_path, **saving), EXAMPLES, callbacks=[FullDisk()]
    )
    try:
        with pytest.raises(TrainingError, match="The checkpoint of step 2 could not be written"):
            trainer.train()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-1"]
    again = RagTrainer(pipeline_of(model_path, kb), arguments(tmp_path, **saving), EXAMPLES)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 4


def test_other_data_is_not_gone_on_with(tmp_path, model_path, kb):
    RagTrainer(pipeline_of(model_path, kb), arguments(tmp_path), EXAMPLES).train()
    other = RagTrainer(pipeline_of(model_path, kb), arguments(tmp_path), EXAMPLES[:3])
    with pytest.raises(TrainingError, match=r"4 questions then, 3 now"):
        other.train(resume_from_checkpoint=True)
    empty = RagTrainer(pipeline_of(model_path, kb), arguments(tmp_path / "empty"), EXAMPLES)
    with pytest.raises(TrainingError, match="no run in"):
        empty.train(resume_from_checkpoint=True)


@pytest.mark.parametrize(
    ("answers", "message"), [(("long " * 80,), "tokens, and the limit is 64"), ((" ",), "no answer to learn")]
)
def test_answers_that_cannot_be_learned_are_named_before_training(tmp_path, model_path, kb, answers, message):
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
def test_questions_that_are_too_long_are_named_before_training(
    tmp_path, model_path, kb, question, length, message, evaluated
):
    wrong = Example("5", question, ("Peru",), ("b",), where="data.jsonl, line 5")
    pipeline = pipeline_of(model_path, kb)
    pipeline.retriever.config.max_combined_length = length
    given = (EXAMPLES[:0], [wrong]) if evaluated else ([wrong], None)
    with pytest.raises(DataError, match=f"data.jsonl, line 5.*{message}"):
        RagTrainer(pipeline, arguments(tmp_path), *given)


def test_a_bar_shows_how_many_questions_are_answered(tmp_path, model_path, kb, capsys):
    trainer = RagTrainer(pipeline_of(model_path, kb), arguments(tmp_path), EXAMPLES, EXAMPLES)
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
def test_scores_that_teach_the_encoder_nothing_are_refused(tmp_path, model_path, kb, search, message):
    pipeline = pipeline_of(model_path, kb)
    pipeline.retriever.index = pipeline.knowledge_base.as_index(search)
    RagTrainer(pipeline, arguments(tmp_path, freeze="question-encoder"), EXAMPLES)
    pipeline.model.requires_grad_(True)
    if message is None:
        RagTrainer(pipeline, arguments(tmp_path), EXAMPLES)
        return
    with pytest.raises(ConfigurationError, match=message):
        RagTrainer(pipeline, arguments(tmp_path), EXAMPLES)


def test_arguments_that_cannot_be(tmp_path):
    wrongs = (
        {"freeze": "everything"},
        {"n_docs": 0},
        {"retriever_loss": "hinge"},
        {"refresh_engine": "spark"},
        {"refresh_steps": 0},
        {"retrieve_ahead": True},
        {"retrieve_ahead": True, "freeze": "question-encoder", "end_to_end": True},
    )
    for wrong in wrongs:
        with pytest.raises(ConfigurationError):
            arguments(tmp_path, **wrong)
