"""Training through the marginal likelihood: it learns, resumes, freezes, and what it saves can be used."""

from __future__ import annotations

import pytest
import torch

from ragweave import RagPipeline
from ragweave.errors import ConfigurationError, DataError
from ragweave.evaluation.data import Example
from ragweave.training.adapters import add_adapter, merge_adapter
from ragweave.training.arguments import RagTrainingArguments
from ragweave.training.collator import RagCollator
from ragweave.training.losses import LOSSES, LossInputs
from ragweave.training.trainer import RagTrainer
from tests.support.pipelines import build_knowledge_base, save_rag_model

EXAMPLES = [
    Example("1", "Where is Lima?", ("Peru", "in Peru"), ("peru.txt",)),
    Example("2", "What is the capital of Kenya?", ("Nairobi",), ("kenya.txt",)),
    Example("3", "What is the capital of Chile?", ("Santiago",), ("chile.txt",)),
    Example("4", "Which ocean is at the coast of Kenya?", ("the Indian Ocean",), ("kenya.txt",)),
]


@pytest.fixture(scope="module")
def kb(tmp_path_factory, tiny_encoder_path):
    return build_knowledge_base(tmp_path_factory.mktemp("base"), tiny_encoder_path)


@pytest.fixture(scope="module", params=[("token", "bart"), ("sequence", "bart"), ("token", "llama")], ids=str)
def model_path(request, tmp_path_factory, tiny_encoder_path):
    return save_rag_model(tmp_path_factory.mktemp("model"), tiny_encoder_path, *request.param)


def pipeline_of(path, kb):
    return RagPipeline.from_pretrained(path, knowledge_base=kb, dtype="float32")


def arguments(folder, **more):
    return RagTrainingArguments(
        output_dir=str(folder),
        **{
            "per_device_train_batch_size": 2,
            "per_device_eval_batch_size": 2,
            "learning_rate": 1e-2,
            "lr_scheduler_type": "constant",
            "num_train_epochs": 1,
            "report_to": [],
            "save_strategy": "no",
            "use_cpu": True,
            "seed": 3,
            "disable_tqdm": True,
            "logging_steps": 1,
            "eval_max_new_tokens": 4,
            **more,
        },
    )


def weights(model, part):
    return {name: weight.detach().clone() for name, weight in getattr(model, part).named_parameters()}


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


def test_collapse_is_told(tmp_path, model_path, kb):
    pipeline = pipeline_of(model_path, kb)
    pipeline.model.config.n_docs = 1
    many = [Example(str(n), f"Where is {n}?", ("Peru",)) for n in range(22)]
    for weight in pipeline.model.question_encoder.parameters():
        weight.data.zero_()  # every question becomes the same vector
    base = pipeline.finder.index.base
    trainer = RagTrainer(pipeline, arguments(tmp_path, n_docs=1, eval_max_new_tokens=1), many, many)
    trainer.pipeline.retriever.index = base.as_index()
    figures = trainer.evaluate()
    assert figures["eval_distinct"] == pytest.approx(1 / 3)


def test_the_collator_ends_answers_as_the_generator_does(model_path, kb):
    pipeline = pipeline_of(model_path, kb)
    tokenizer = pipeline.retriever.generator_tokenizer
    causal = pipeline.model.config.generator_is_causal
    batch = RagCollator(pipeline.encoder.tokenizer, tokenizer, causal=causal)(EXAMPLES)
    assert batch["labels"].shape[0] == batch["input_ids"].shape[0] == 4
    for row, example in zip(batch["labels"], EXAMPLES, strict=True):
        ids = [token for token in row.tolist() if token >= 0]
        assert ids[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(ids, skip_special_tokens=True).strip() == example.answers[0]
    with pytest.raises(DataError, match="no answer to learn"):
        RagCollator(pipeline.encoder.tokenizer, tokenizer, causal=causal)([Example("1", "a?", (), ("b",))])


def test_arguments_that_cannot_be(tmp_path):
    for wrong in ({"freeze": "everything"}, {"n_docs": 0}):
        with pytest.raises(ConfigurationError):
            arguments(tmp_path, **wrong)
