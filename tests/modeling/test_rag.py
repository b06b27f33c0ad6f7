"""RagModel and what both models share: the retriever, outputs, gradients, saving and loading, embeddings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
import transformers as tf
from packaging.version import Version

from ragweave import (
    RagConfig,
    RagModel,
    RagTokenForGeneration,
    RetrievAugLMMarginOutput,
    RetrievAugLMOutput,
)
from ragweave.errors import ConfigurationError, MissingContextError, ShapeError
from tests.support import models
from tests.support.models import FORMULATIONS, GENERATORS, SEQ2SEQ, VectorRetriever, rag_model, shared_model

pytestmark = pytest.mark.usefixtures("quiet_transformers")

formulations = pytest.mark.parametrize("formulation", FORMULATIONS)
QUESTIONS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 0]])
QUESTION_MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])


def retrieving_model(formulation: str = "token", generator: str = "bart", **fields: Any) -> Any:
    return rag_model(models.CLASSES[formulation], generator, retriever=VectorRetriever(), **fields)


# The retriever.


@pytest.mark.parametrize("generator", ["bart", "llama"])
@formulations
def test_retrieved_passages_are_used_as_given_ones(formulation: str, generator: str) -> None:
    model, labels = retrieving_model(formulation, generator), models.words(2, 4)
    with torch.no_grad():
        output = model(
            input_ids=QUESTIONS, attention_mask=QUESTION_MASK, labels=labels, output_retrieved=True
        )
        inputs = {
            name: output[name] for name in ("context_input_ids", "context_attention_mask", "doc_scores")
        }
        again = model(**inputs, labels=labels)
    assert output.retrieved_doc_ids.shape == (2, 3)
    assert output.retrieved_doc_embeds.shape == (2, 3, models.DIMENSION)
    assert output.question_encoder_last_hidden_state.shape == (2, models.DIMENSION)
    assert torch.equal(output.loss, again.loss)
    options = {"max_new_tokens": 5, "num_beams": 2}
    assert torch.equal(
        model.generate(input_ids=QUESTIONS, attention_mask=QUESTION_MASK, **options),
        model.generate(**inputs, **options),
    )


def test_scores_are_inner_products_of_question_and_passages() -> None:
    model = retrieving_model()
    retriever = model.retriever
    retrieved = model.rag.retrieve(QUESTIONS, QUESTION_MASK)
    vectors = model.question_encoder(QUESTIONS, attention_mask=QUESTION_MASK).pooler_output
    best = (vectors @ retriever.vectors.T).topk(3, dim=1)
    assert torch.equal(retrieved.retrieved_doc_ids, best.indices)
    assert torch.allclose(retrieved.doc_scores, best.values, atol=1e-5)


def test_scale_multiplies_scores() -> None:
    plain, scaled = (retrieving_model(doc_score_scale=scale) for scale in (1.0, 20.0))
    before, after = (model.rag.retrieve(QUESTIONS) for model in (plain, scaled))
    assert torch.allclose(after.doc_scores, 20 * before.doc_scores)


def test_scores_stay_in_float32_under_autocast() -> None:
    """The three digits of bfloat16 are too few for a softmax of inner products."""
    model = retrieving_model()
    questions = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    passages = torch.randn(2, 3, 64, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16):
        scores = model.rag.score_passages(questions, passages)
        retrieved = model.rag.retrieve(QUESTIONS).doc_scores
    assert scores.dtype == retrieved.dtype == torch.float32
    assert torch.allclose(scores, torch.einsum("bd,bkd->bk", questions, passages), atol=1e-5)


def test_the_call_decides_on_the_number_of_passages() -> None:
    model = retrieving_model()
    with torch.no_grad():
        output = model(input_ids=QUESTIONS, labels=models.words(2, 4), n_docs=5, output_retrieved=True)
    assert output.doc_scores.shape == (2, 5)
    assert output.logits.shape[0] == 10
    assert model.retriever.calls[-1]["n_docs"] == 5
    assert model.generate(input_ids=QUESTIONS, n_docs=2, max_new_tokens=3).shape[0] == 2
    assert model.retriever.calls[-1]["n_docs"] == 2


def test_places_without_passage_have_no_weight() -> None:
    model = retrieving_model()
    model.set_retriever(VectorRetriever(n_passages=2))
    assert model.rag.retriever is model.retriever
    with torch.no_grad():
        output = model(input_ids=QUESTIONS, labels=models.words(2, 4), n_docs=4, output_retrieved=True)
        shorter = model(input_ids=QUESTIONS, labels=models.words(2, 4), n_docs=2)
    assert output.retrieved_doc_ids[:, 2:].eq(-1).all()
    assert output.doc_scores[:, 2:].eq(-torch.inf).all()
    assert torch.allclose(output.loss, shorter.loss)


@pytest.mark.parametrize(("field", "prefix"), [("config", None), ("generator", "translate: ")])
def test_prefix_comes_from_the_configuration_or_the_generator(field: str, prefix: str | None) -> None:
    fields: dict[str, Any] = {"prefix": "answer: "} if field == "config" else {}
    model = retrieving_model(**fields)
    model.generator.config.prefix = prefix
    model.rag.retrieve(QUESTIONS)
    assert model.retriever.calls[-1]["prefix"] == ("answer: " if field == "config" else prefix)


SMALL = {"vocab_size": models.VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2}


def test_transformers_still_marks_recurrent_models() -> None:
    """`check_generator` reads the private attribute."""
    assert not tf.BartForConditionalGeneration._is_stateful
    assert tf.MambaForCausalLM._is_stateful


@pytest.mark.parametrize(
    "generator",
    [
        tf.MambaConfig(**SMALL, state_size=4),
        tf.Lfm2Config(
            **SMALL, intermediate_size=32, num_attention_heads=2, num_key_value_heads=1, full_attn_idxs=[0]
        ),
        tf.SwitchTransformersConfig(
            vocab_size=models.VOCABULARY,
            d_model=16,
            d_kv=8,
            d_ff=32,
            num_layers=2,
            num_heads=2,
            num_experts=2,
        ),
    ],
    ids=lambda config: config.model_type,
)
def test_generators_that_cannot_work_are_named(generator: Any) -> None:
    question_encoder = models.question_encoder_config()
    config = RagConfig.from_question_encoder_generator_configs(question_encoder, generator)
    with pytest.raises(ConfigurationError, match=f"type '{generator.model_type}' .* not supported"):
        RagModel(config)


def test_rag_model_has_a_retriever_to_set() -> None:
    model = RagModel(models.rag_config()).eval()
    with pytest.raises(MissingContextError, match="set_retriever"):
        model(input_ids=QUESTIONS, decoder_input_ids=models.words(2, 4))
    model.set_retriever(VectorRetriever())
    assert model(input_ids=QUESTIONS, decoder_input_ids=models.words(2, 4)).doc_scores.shape == (2, 3)


def test_given_contexts_are_used_though_there_is_a_retriever() -> None:
    model, inputs = retrieving_model("sequence"), models.contexts()
    answers = model.generate(input_ids=QUESTIONS, **inputs, max_new_tokens=4)
    assert torch.equal(answers, model.generate(**inputs, max_new_tokens=4))
    assert not model.retriever.calls


@pytest.mark.parametrize("generator", ["bart", "t5", "llama"])
@formulations
def test_gradient_reaches_question_encoder_and_generator(formulation: str, generator: str) -> None:
    model = retrieving_model(formulation, generator)
    model(input_ids=QUESTIONS, labels=models.words(2, 4), reduce_loss=True).loss.backward()
    for part in (model.question_encoder, model.generator):
        gradients = [p.grad for p in part.parameters() if p.grad is not None]
        assert sum(float(gradient.abs().sum()) for gradient in gradients) > 1e-4
        assert all(gradient.isfinite().all() for gradient in gradients)


@formulations
def test_a_step_of_training_lowers_the_loss(formulation: str) -> None:
    model, labels = retrieving_model(formulation), models.words(2, 4)
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(3):
        loss = model(input_ids=QUESTIONS, labels=labels, reduce_loss=True).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[2] < losses[1] < losses[0]


def test_a_context_encoder_scores_and_is_trained() -> None:
    model = retrieving_model()
    encoder = tf.DPRContextEncoder(models.question_encoder_config("dpr")).eval()
    model.set_context_encoder_for_training(encoder)
    with pytest.raises(MissingContextError, match="set_ctx_encoder_tokenizer"):
        model(input_ids=QUESTIONS, labels=models.words(2, 4))
    model.retriever.return_tokenised = True
    output = model(input_ids=QUESTIONS, labels=models.words(2, 4), output_retrieved=True)
    tokens = model.retriever.tokenised[output.retrieved_doc_ids]
    vectors = encoder(tokens.flatten(0, 1)).pooler_output.view(2, 3, -1)
    expected = torch.einsum("bd,bkd->bk", output.question_encoder_last_hidden_state, vectors)
    assert torch.allclose(output.doc_scores, expected, atol=1e-4)
    output.loss.sum().backward()
    assert sum(float(p.grad.abs().sum()) for p in encoder.parameters() if p.grad is not None) > 1e-6
    assert model.rag.context_encoder_training


# The question encoder.


def test_pooling_modes() -> None:
    encoder = rag_model(RagTokenForGeneration, question_encoder="bert")
    states = encoder.question_encoder(QUESTIONS, attention_mask=QUESTION_MASK)
    weight = QUESTION_MASK[..., None].float()
    expected = {
        None: states.last_hidden_state[:, 0],
        "cls": states.last_hidden_state[:, 0],
        "mean": (states.last_hidden_state * weight).sum(1) / weight.sum(1),
        "pooler": states.pooler_output,
    }
    for pooling, vectors in expected.items():
        encoder.config.question_encoder_pooling = pooling
        got, _ = encoder.rag.encode_question(QUESTIONS, QUESTION_MASK)
        assert torch.allclose(got, vectors, atol=1e-6), pooling
        encoder.config.question_encoder_normalize = True
        got, _ = encoder.rag.encode_question(QUESTIONS, QUESTION_MASK)
        assert torch.allclose(got, vectors / vectors.norm(dim=1, keepdim=True), atol=1e-6), pooling
        encoder.config.question_encoder_normalize = False


def test_a_question_without_mask_is_read_whole() -> None:
    model = rag_model(RagTokenForGeneration, question_encoder="bert", question_encoder_pooling="mean")
    plain, _ = model.rag.encode_question(QUESTIONS)
    masked, _ = model.rag.encode_question(QUESTIONS, torch.ones_like(QUESTIONS))
    assert torch.allclose(plain, masked)


def test_dpr_gives_its_own_vector() -> None:
    model = shared_model("token")
    vectors, output = model.rag.encode_question(QUESTIONS, QUESTION_MASK)
    assert torch.equal(vectors, output.pooler_output)


def test_a_bert_question_encoder_works_from_question_to_answer() -> None:
    model = retrieving_model(question_encoder="bert")
    assert model(input_ids=QUESTIONS, labels=models.words(2, 3)).loss.isfinite().all()
    assert model.generate(input_ids=QUESTIONS, max_new_tokens=3).shape[0] == 2


# Outputs.


def test_rag_model_returns_logits_of_every_passage() -> None:
    model = RagModel(models.rag_config(), retriever=VectorRetriever()).eval()
    output = model(input_ids=QUESTIONS, decoder_input_ids=models.words(2, 4))
    assert isinstance(output, RetrievAugLMOutput)
    assert output.logits.shape == (6, 4, models.VOCABULARY)
    assert output.doc_scores.shape == (2, 3)
    assert output.past_key_values is not None
    as_tuple = model(input_ids=QUESTIONS, decoder_input_ids=models.words(2, 4), return_dict=False)
    assert isinstance(as_tuple, tuple)
    assert torch.equal(as_tuple[0], output.logits)


@formulations
def test_the_loss_comes_first_in_the_tuple(formulation: str) -> None:
    model, inputs, labels = shared_model(formulation), models.contexts(), models.words(2, 4)
    output = model(**inputs, labels=labels)
    assert isinstance(output, RetrievAugLMMarginOutput)
    as_tuple = model(**inputs, labels=labels, return_dict=False)
    assert torch.equal(as_tuple[0], output.loss)
    assert torch.equal(as_tuple[1], output.logits)


@formulations
def test_retrieved_passages_are_returned_where_asked_for(formulation: str) -> None:
    model, labels = retrieving_model(formulation), models.words(2, 4)
    names = ("context_input_ids", "context_attention_mask", "retrieved_doc_ids", "retrieved_doc_embeds")
    silent = model(input_ids=QUESTIONS, labels=labels)
    assert all(silent[name] is None if name in silent else True for name in names)
    assert [getattr(silent, name) for name in names] == [None] * 4
    told = model(input_ids=QUESTIONS, labels=labels, output_retrieved=True)
    assert all(isinstance(getattr(told, name), torch.Tensor) for name in names)
    model.config.output_retrieved = True
    assert model(input_ids=QUESTIONS, labels=labels).retrieved_doc_ids is not None


@pytest.mark.parametrize("generator", GENERATORS)
@formulations
def test_hidden_states_and_attentions_are_those_of_all_parts(formulation: str, generator: str) -> None:
    model = retrieving_model(formulation, generator)
    model.set_attn_implementation("eager")
    labels = models.words(2, 4)
    output = model(input_ids=QUESTIONS, labels=labels, output_hidden_states=True, output_attentions=True)
    expected_layers = {"question_enc": 1, "generator_dec": 2}
    if generator in SEQ2SEQ:
        expected_layers["generator_enc"] = 2
        assert len(output.generator_cross_attentions) == 2
        assert output.generator_cross_attentions[0].shape[0] == 6
        assert output.generator_enc_last_hidden_state.shape[0] == 6
    for part, layers in expected_layers.items():
        assert len(output[f"{part}_attentions"]) == layers
        assert len(output[f"{part}_hidden_states"]) == layers + 1
    plain = model(input_ids=QUESTIONS, labels=labels)
    assert plain.generator_dec_attentions is None
    assert plain.generator_dec_hidden_states is None
    assert plain.question_enc_hidden_states is None


def test_attentions_of_the_question_that_sdpa_does_not_return_are_left_out() -> None:
    model = retrieving_model("token", "bart")
    output = model(input_ids=QUESTIONS, labels=models.words(2, 4), output_attentions=True)
    assert output.question_enc_attentions is None
    assert "question_enc_attentions" not in output


@pytest.mark.parametrize("generator", SEQ2SEQ)
@pytest.mark.parametrize("form", ["tuple", "output"])
@formulations
def test_encoder_outputs_are_used_again(formulation: str, form: str, generator: str) -> None:
    model, labels = shared_model(formulation, generator), models.words(2, 4)
    inputs = models.contexts()
    inputs["context_input_ids"] = torch.nn.functional.pad(inputs["context_input_ids"], (0, 4), value=1)
    inputs["context_attention_mask"] = torch.nn.functional.pad(inputs["context_attention_mask"], (0, 4))
    with torch.no_grad():
        first = model(**inputs, labels=labels)
        states = first.generator_enc_last_hidden_state
        again = model(
            encoder_outputs=(states,)
            if form == "tuple"
            else tf.modeling_outputs.BaseModelOutput(last_hidden_state=states),
            context_attention_mask=inputs["context_attention_mask"],
            doc_scores=inputs["doc_scores"],
            labels=labels,
        )
    assert torch.allclose(first.loss, again.loss, atol=1e-5)


def test_encoder_outputs_need_scores() -> None:
    with pytest.raises(MissingContextError, match="doc_scores not given"):
        shared_model("token")(encoder_outputs=(torch.zeros(6, 9, 16),), labels=models.words(2, 4))


# Precision and memory.


@pytest.mark.parametrize("generator", ["bart", "t5", "llama", "gpt2"])
@formulations
def test_bfloat16_models_score_and_decode(formulation: str, generator: str) -> None:
    model = rag_model(models.CLASSES[formulation], generator).to(torch.bfloat16)
    model.set_retriever(VectorRetriever())
    output = model(input_ids=QUESTIONS, labels=models.words(2, 4))
    assert output.loss.dtype == torch.float32
    assert output.logits.dtype == torch.bfloat16
    with torch.no_grad():
        exact = model.float()(input_ids=QUESTIONS, labels=models.words(2, 4)).loss
    assert output.loss.tolist() == pytest.approx(exact.tolist(), rel=0.1)
    answers = model.to(torch.bfloat16).generate(input_ids=QUESTIONS, num_beams=2, max_new_tokens=4)
    assert answers.shape[0] == 2


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")
@pytest.mark.parametrize("generator", ["bart", "t5", "llama", "gpt2"])
@formulations
def test_gradient_checkpointing_gives_equal_gradients(formulation: str, generator: str) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = rag_model(models.CLASSES[formulation], generator, retriever=VectorRetriever()).train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
            for name in ("dropout", "attention_dropout", "attn_pdrop"):
                if isinstance(getattr(module, name, None), float):
                    setattr(module, name, 0.0)
        if checkpointing:
            model.gradient_checkpointing_enable()
            assert model.is_gradient_checkpointing
        model(input_ids=QUESTIONS, labels=models.words(2, 4)).loss.sum().backward()
        gradients.append(model.generator.get_input_embeddings().weight.grad.clone())
    assert torch.allclose(*gradients, rtol=1e-4, atol=1e-4)


# Saving and loading.


@pytest.mark.parametrize("generator", GENERATORS)
@formulations
def test_a_saved_model_loads_with_equal_logits(formulation: str, generator: str, tmp_path: Path) -> None:
    model, inputs = rag_model(models.CLASSES[formulation], generator), models.contexts()
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").exists()
    retriever = VectorRetriever()
    loaded = models.CLASSES[formulation].from_pretrained(tmp_path, retriever=retriever)
    assert loaded.retriever is retriever
    assert not loaded.training
    labels = models.words(2, 4)
    with torch.no_grad():
        before, after = model(**inputs, labels=labels), loaded(**inputs, labels=labels)
    assert torch.equal(before.logits, after.logits)
    assert torch.equal(before.loss, after.loss)
    assert loaded.config.n_docs == model.config.n_docs


def test_one_folder_serves_all_three_models(tmp_path: Path) -> None:
    model, inputs = rag_model(RagTokenForGeneration), models.contexts()
    model.save_pretrained(tmp_path)
    read = models.words(2, 4)
    expected = model(**inputs, decoder_input_ids=read).logits
    for cls in (models.CLASSES["sequence"], RagTokenForGeneration):
        assert torch.equal(cls.from_pretrained(tmp_path)(**inputs, decoder_input_ids=read).logits, expected)


def test_attention_implementation_reaches_both_networks(tmp_path: Path) -> None:
    rag_model(RagTokenForGeneration).save_pretrained(tmp_path)
    eager = RagTokenForGeneration.from_pretrained(tmp_path, attn_implementation="eager")
    output = eager(**models.contexts(), labels=models.words(2, 4), output_attentions=True)
    assert len(output.generator_cross_attentions) == 2
    assert eager.question_encoder.config._attn_implementation == "eager"
    half = RagTokenForGeneration.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.generator.dtype == half.question_encoder.dtype == torch.bfloat16


OFFLOADED = pytest.param(
    {"rag.question_encoder": "cpu", "rag.generator": "disk"},
    marks=pytest.mark.skipif(
        Version(accelerate.__version__) < Version("1.15"),
        reason="accelerate loads tied weights of a wrong shape",
    ),
)


@pytest.mark.parametrize("device_map", ["auto", {"": "cpu"}, OFFLOADED])
@formulations
def test_device_maps(formulation: str, device_map: Any, tmp_path: Path) -> None:
    """Also if a part stays on disk until it is used, as with models larger than memory."""
    model, inputs = rag_model(models.CLASSES[formulation]), models.contexts()
    model.save_pretrained(tmp_path)
    mapped = models.CLASSES[formulation].from_pretrained(
        tmp_path, device_map=device_map, offload_folder=tmp_path / "offload"
    )
    labels = models.words(2, 4)
    with torch.no_grad():
        assert torch.equal(mapped(**inputs, labels=labels).loss, model(**inputs, labels=labels).loss)
    options = {"max_new_tokens": 4, "num_beams": 2}
    assert torch.equal(mapped.generate(**inputs, **options), model.generate(**inputs, **options))


@formulations
def test_generation_fields_of_a_checkpoint_are_honoured(formulation: str, tmp_path: Path) -> None:
    """facebook/rag-* have them at the top level of config.json, and no generation_config.json."""
    model, inputs = rag_model(models.CLASSES[formulation]), models.contexts()
    model.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").unlink(missing_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    banned = int(model.generate(**inputs, max_new_tokens=1, suppress_tokens=[1])[0, 1])
    fields = {"num_beams": 3, "max_length": 6, "min_length": 6, "bad_words_ids": [[banned], [1]]}
    config |= fields
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = models.CLASSES[formulation].from_pretrained(tmp_path)
    assert loaded.generation_config.num_beams == 3
    answers = loaded.generate(**inputs)
    assert answers.shape[1] == 6
    assert not answers.eq(banned).any()
    assert torch.equal(answers, model.generate(**inputs, **fields))
    one = tf.GenerationConfig(num_beams=1, max_length=4, min_length=4)
    assert loaded.generate(**inputs, generation_config=one).shape[1] == 4


def save_parts(folder: Path, generator: str, question_encoder: str = "dpr") -> tuple[str, str]:
    model = rag_model(RagTokenForGeneration, generator, question_encoder=question_encoder)
    names = (str(folder / "encoder"), str(folder / "generator"))
    model.question_encoder.save_pretrained(names[0])
    model.generator.save_pretrained(names[1])
    return names


@pytest.mark.parametrize(
    ("question_encoder", "generator"),
    [("dpr", "bart"), ("bert", "bart"), ("dpr", "t5"), ("bert", "llama"), ("dpr", "gpt2")],
)
@formulations
def test_a_model_is_put_together_from_two_folders(
    formulation: str, generator: str, question_encoder: str, tmp_path: Path
) -> None:
    names = save_parts(tmp_path, generator, question_encoder)
    retriever = VectorRetriever()
    cls = models.CLASSES[formulation]
    model = cls.from_pretrained_question_encoder_generator(*names, retriever=retriever, n_docs=4)
    assert not model.training
    assert model.retriever is retriever
    assert model.config.n_docs == 4
    assert model.config.generator_is_causal == (generator in models.CAUSAL)
    parts = rag_model(RagTokenForGeneration, generator, question_encoder=question_encoder)
    labels, inputs = models.words(2, 4), models.contexts()
    with torch.no_grad():
        loss = model(**inputs, labels=labels).loss
        rebuilt = cls(question_encoder=parts.question_encoder, generator=parts.generator).eval()
        assert torch.allclose(rebuilt(**inputs, labels=labels).loss, loss)
    assert model.generate(input_ids=QUESTIONS, max_new_tokens=3).shape[0] == 2
    model.save_pretrained(tmp_path / "rag")
    again = cls.from_pretrained(tmp_path / "rag")
    with torch.no_grad():
        assert torch.equal(again(**inputs, labels=labels).loss, loss)


def test_arguments_with_a_prefix_go_to_the_part(tmp_path: Path) -> None:
    encoder, generator = save_parts(tmp_path, "bart")
    generator_model = tf.AutoModelForSeq2SeqLM.from_pretrained(generator)
    model = RagTokenForGeneration.from_pretrained_question_encoder_generator(
        encoder,
        None,
        generator_model=generator_model,
        question_encoder_attn_implementation="eager",
        question_encoder_pooling="pooler",
        label_smoothing=0.1,
    )
    assert model.generator is generator_model
    assert model.question_encoder.config._attn_implementation == "eager"
    assert model.config.question_encoder_pooling == "pooler"
    assert model.config.label_smoothing == 0.1
    inputs = RagTokenForGeneration.from_pretrained_question_encoder_generator(
        encoder,
        generator,
        generator_config=tf.AutoConfig.from_pretrained(generator, dropout=0.0),
        config=models.rag_config(n_docs=2),
    )
    assert inputs.generator.config.dropout == 0.0
    assert inputs.config.n_docs == 2


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((None, "generator"), "question_encoder_pretrained_model_name_or_path"),
        (("encoder", None), "generator_pretrained_model_name_or_path, or a model as generator_model"),
    ],
)
def test_a_part_without_name_is_refused(names: tuple[str | None, ...], message: str, tmp_path: Path) -> None:
    save_parts(tmp_path, "bart")
    paths = [None if name is None else str(tmp_path / name) for name in names]
    with pytest.raises(ConfigurationError, match=message):
        RagTokenForGeneration.from_pretrained_question_encoder_generator(*paths)


def test_all_end_tokens_of_the_generators_own_generation_config_end_answers(tmp_path: Path) -> None:
    """The generation configuration of chat models lists more of them than their configuration."""
    encoder, name = save_parts(tmp_path, "llama")
    generator = tf.AutoModelForCausalLM.from_pretrained(name)
    inputs = models.contexts(1)
    parts = {"question_encoder_model": None, "generator_model": generator}
    plain = RagTokenForGeneration.from_pretrained_question_encoder_generator(encoder, **parts)
    answer = plain.generate(**inputs, max_new_tokens=6)[0].tolist()
    generator.generation_config.eos_token_id = [2, answer[2]]
    generator.save_pretrained(name)
    model = RagTokenForGeneration.from_pretrained_question_encoder_generator(encoder, name)
    expected = answer[: answer.index(answer[2], 1) + 1]
    assert model.generate(**inputs, max_new_tokens=6)[0].tolist() == expected
    model.save_pretrained(tmp_path / "rag")
    loaded = RagTokenForGeneration.from_pretrained(tmp_path / "rag")
    assert loaded.generate(**inputs, max_new_tokens=6)[0].tolist() == expected


def test_a_model_needs_a_configuration_or_two_parts() -> None:
    with pytest.raises(ConfigurationError, match="Give a RagConfig, or both"):
        RagTokenForGeneration()
    with pytest.raises(ConfigurationError, match="config is a BartConfig; give a RagConfig"):
        RagTokenForGeneration(models.generator_config("bart"))


def test_a_configuration_of_transformers_own_rag_is_accepted() -> None:
    theirs = tf.RagConfig.from_question_encoder_generator_configs(
        models.question_encoder_config(), models.generator_config("bart"), n_docs=2
    )
    config = RagConfig.from_dict(theirs.to_dict())
    assert config.n_docs == 2
    assert RagTokenForGeneration(config).generator.config.model_type == "bart"


# Embeddings.


@pytest.mark.parametrize("generator", ["bart", "t5", "gated_t5", "pegasus", "llama", "gpt2"])
@formulations
def test_resized_embeddings_survive_saving(formulation: str, generator: str, tmp_path: Path) -> None:
    model, inputs = rag_model(models.CLASSES[formulation], generator), models.contexts()
    labels = models.words(2, 4)
    model.resize_token_embeddings(models.VOCABULARY + 5)
    labels[:, -1] = models.VOCABULARY + 4
    with torch.no_grad():
        output = model(**inputs, labels=labels)
    assert output.logits.shape[-1] == models.VOCABULARY + 5
    model.generate(**inputs, max_new_tokens=3)
    model.save_pretrained(tmp_path)
    loaded = models.CLASSES[formulation].from_pretrained(tmp_path)
    assert loaded.config.generator.vocab_size == models.VOCABULARY + 5
    with torch.no_grad():
        assert torch.equal(loaded(**inputs, labels=labels).loss, output.loss)


def test_resizing_a_model_made_of_parts_updates_its_configuration(tmp_path: Path) -> None:
    parts = rag_model(RagTokenForGeneration)
    model = RagTokenForGeneration(question_encoder=parts.question_encoder, generator=parts.generator)
    model.resize_token_embeddings(50)
    assert model.config.generator.vocab_size == 50
    model.save_pretrained(tmp_path)
    assert RagTokenForGeneration.from_pretrained(tmp_path).get_input_embeddings().weight.shape[0] == 50


@formulations
def test_embeddings_are_the_generators(formulation: str) -> None:
    model = rag_model(models.CLASSES[formulation])
    assert model.get_input_embeddings() is model.generator.get_input_embeddings()
    assert model.get_output_embeddings() is model.generator.get_output_embeddings()
    new = torch.nn.Embedding(models.VOCABULARY, 16)
    model.set_input_embeddings(new)
    assert model.generator.get_input_embeddings() is new
    head = torch.nn.Linear(16, models.VOCABULARY, bias=False)
    model.set_output_embeddings(head)
    assert model.generator.get_output_embeddings() is head


def test_unknown_arguments_are_ignored_with_a_warning() -> None:
    model, inputs = shared_model("token"), {**models.contexts(n_questions=1), "labels": models.words(1, 4)}
    with pytest.warns(UserWarning, match="ignores unknown argument.s.: lables"):
        output = model(**inputs, lables=models.words(1, 4))
    assert torch.equal(output.loss, model(**inputs).loss)


def test_question_without_any_passage_is_refused() -> None:
    model, inputs = shared_model("token"), models.contexts(n_questions=2)
    inputs["doc_scores"] = inputs["doc_scores"].clone()
    inputs["doc_scores"][1] = float("-inf")
    with pytest.raises(ShapeError, match="question 1"):
        model(**inputs, labels=models.words(2, 4))
