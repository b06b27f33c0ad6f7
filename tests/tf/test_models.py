"""Logits, losses and gradients equal those of the torch classes; wrong arguments raise errors that name them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from keras import ops

import ragweave
import ragweave.tf
from ragweave.errors import ConfigurationError, MissingContextError, ShapeError
from tests.tf.parity import (
    FORMULATIONS,
    KINDS,
    OURS,
    TORCH,
    Case,
    NumpyRetriever,
    gradients,
    numpy_of,
    pair,
    rag_config,
    torch_gradients,
)
from tests.tf.support import array, assert_all_close, assert_close, tensor, tokens

MODELS = pytest.mark.parametrize(("formulation", "kind"), [(f, k) for f in FORMULATIONS for k in KINDS])
QUESTIONS = {"vocabulary": 30}


def assert_equal_gradients(theirs: Any, ours: Any, expected_loss: torch.Tensor, loss_of: Any) -> None:
    expected = torch_gradients(theirs, expected_loss)
    got = gradients(ours, loss_of)
    assert set(got) <= set(expected)
    for name, gradient in got.items():
        assert_close(gradient, expected[name], 2e-4)


@MODELS
@pytest.mark.parametrize("seed", range(4))
def test_logits_losses_and_gradients(formulation: str, kind: str, seed: int, tmp_path: Path):
    case = Case(seed)
    theirs, ours = pair(formulation, kind, seed, tmp_path, label_smoothing=case.smoothing)
    arguments = numpy_of(case.arguments)
    expected = theirs(**case.arguments, labels=case.labels)
    got = ours(**arguments, labels=case.labels.numpy())
    assert_close(got.logits, expected.logits)
    assert_close(got.loss, expected.loss)
    reduced = ours(**arguments, labels=case.labels.numpy(), reduce_loss=True)
    assert_close(reduced.loss, expected.loss.sum())
    assert_equal_gradients(
        theirs,
        ours,
        expected.loss.sum(),
        lambda: ours(**arguments, labels=case.labels.numpy(), reduce_loss=True).loss,
    )


@MODELS
def test_the_model_calls_its_retriever(formulation: str, kind: str, tmp_path: Path):
    theirs, ours = pair(formulation, kind, 7, tmp_path, doc_score_scale=0.5, prefix="p")
    retriever = NumpyRetriever(n_passages=2, dimension=theirs.question_encoder.config.hidden_size)
    if theirs.question_encoder.config.projection_dim:
        retriever = NumpyRetriever(n_passages=2, dimension=theirs.question_encoder.config.projection_dim)
    retriever.extra = {
        "doc_score_weights": np.array([[1.0, 0.5, 0.0], [0.0, 1.0, 1.0]], np.float32),
        "doc_score_offsets": np.array([[0.1, 0.5, 0.0], [0.7, -1.0, 1.0]], np.float32),
    }
    theirs.set_retriever(retriever)
    ours.set_retriever(retriever)
    assert ours.retriever is retriever
    ids, labels = tokens(2, 6, seed=1, vocabulary=30), tokens(2, 4, seed=2)
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    expected = theirs(input_ids=ids, attention_mask=mask, labels=labels, output_retrieved=True)
    inputs = {"input_ids": ids.numpy(), "attention_mask": mask.numpy(), "labels": labels.numpy()}
    got = ours(**inputs, output_retrieved=True)
    assert retriever.calls[-1] == {"prefix": "p", "return_tensors": "np"}
    for name, value in expected.items():
        assert_close(got[name], value)
    assert list(got) == list(expected)
    assert (array(got.retrieved_doc_ids)[:, 2] == -1).all()  # there are only two passages
    assert_equal_gradients(theirs, ours, expected.loss.sum(), lambda: ops.sum(ours(**inputs).loss))
    ours.rag.retrieve(inputs["input_ids"], question_strings=["a", "b"])
    assert retriever.calls[-1]["question_strings"] == ["a", "b"]


@pytest.mark.parametrize(
    ("pooling", "normalize", "dim"), [(None, False, None), ("mean", True, 5), ("pooler", False, None)]
)
def test_a_bert_question_encoder(pooling: str | None, normalize: bool, dim: int | None, tmp_path: Path):
    names = ("pooling", "normalize", "dim")
    fields = {f"question_encoder_{n}": v for n, v in zip(names, (pooling, normalize, dim), strict=True)}
    theirs, ours = pair("token", "bart", 3, tmp_path, encoder="bert", **fields)
    ids, mask = tokens(3, 6, seed=1, vocabulary=30), torch.ones(3, 6, dtype=torch.long)
    mask[1, 4:] = 0
    expected = theirs.rag.encode_question(ids, mask)[0]
    assert_close(ours.rag.encode_question(tensor(ids), tensor(mask))[0], expected)
    assert_close(ours.rag.encode_question(tensor(ids))[0], theirs.rag.encode_question(ids)[0])


def test_poolings_that_dpr_lacks_are_refused(tmp_path: Path):
    model = OURS["token"](rag_config("bart", 0, question_encoder_pooling="mean"))
    with pytest.raises(ConfigurationError, match="set the pooling to 'pooler'"):
        model.rag.encode_question(tensor(tokens(1, 3, seed=0, vocabulary=30)))


@MODELS
def test_hidden_states_and_attentions(formulation: str, kind: str, tmp_path: Path):
    theirs, ours = pair(formulation, kind, 2, tmp_path)
    size = theirs.question_encoder.config.projection_dim or theirs.question_encoder.config.hidden_size
    retriever = NumpyRetriever(dimension=size)
    theirs.set_retriever(retriever)
    ours.set_retriever(retriever)
    inputs = {"input_ids": tokens(2, 5, seed=1, vocabulary=30), "decoder_input_ids": tokens(4, 3, seed=2)}
    flags = {"output_hidden_states": True, "output_attentions": True, "use_cache": False}
    with torch.no_grad():
        expected = theirs(**inputs, **flags)
    got = ours(**numpy_of(inputs), **flags)
    assert list(got) == list(expected)
    real = expected.generator_enc_last_hidden_state.abs().sum(-1) > 0  # torch encodes contexts in groups
    for name, value in expected.items():
        if "generator_enc" not in name and isinstance(value, tuple):
            assert_all_close(got[name], value)
        elif "generator_enc" not in name:
            assert_close(got[name], value)
    assert len(got.generator_enc_hidden_states) == len(expected.generator_enc_hidden_states)
    for actual, reference in zip(
        got.generator_enc_attentions, expected.generator_enc_attentions, strict=True
    ):
        assert array(actual).shape == tuple(reference.shape)
    assert real.any()


@MODELS
def test_label_conventions(formulation: str, kind: str, tmp_path: Path):
    theirs, ours = pair(formulation, kind, 4, tmp_path)
    case = Case(11)
    labels = case.labels
    labels[:, 0] = theirs.rag.special_tokens.bos if theirs.rag.special_tokens.bos is not None else 5
    begun = labels.roll(1, dims=1)
    begun[:, 0] = labels[0, 0]
    one = labels[:, :1]
    calls: list[dict[str, Any]] = [
        {"labels": labels, "decoder_input_ids": theirs.shift_tokens_right(labels)},
        {"labels": labels, "decoder_input_ids": labels.clamp(min=1)},
        {"labels": one},
        {"labels": one, "decoder_input_ids": one},
        {"labels": labels, "decoder_input_ids": theirs.shift_tokens_right(labels), "exclude_bos_score": True},
        {"labels": begun, "exclude_bos_score": True},
        {"labels": begun, "do_marginalize": True},
    ]
    for call in calls:
        with torch.no_grad():
            expected = theirs(**case.arguments, **call)
        got = ours(**numpy_of(case.arguments), **numpy_of(call))
        assert_close(got.loss, expected.loss)
        assert_close(got.logits, expected.logits)
    assert (
        array(ours.shift_tokens_right(labels.numpy())).tolist() == theirs.shift_tokens_right(labels).tolist()
    )
    assert array(ours.shift_tokens_right(labels.numpy(), 9)).tolist() == (
        theirs.shift_tokens_right(labels, 9).tolist()
    )


def test_the_end_token_pads(tmp_path: Path):
    theirs, ours = pair("token", "bart", 0, tmp_path, pad_token_id=2, eos_token_id=2)
    case = Case(3)
    case.labels[:, -2:] = 2
    expected = theirs(**case.arguments, labels=case.labels).loss
    assert_close(ours(**numpy_of(case.arguments), labels=case.labels.numpy()).loss, expected)


def test_the_model_without_marginalisation(tmp_path: Path):
    theirs = ragweave.RagModel(rag_config("t5", 1)).eval()
    theirs.save_pretrained(tmp_path)
    ours = ragweave.tf.TFRagModel.from_pretrained(tmp_path)
    case = Case(2)
    ids = tokens(2 * len(case.arguments["doc_scores"]), 3, seed=1)  # two rows for every question
    mask = torch.ones_like(ids)
    mask[0, 1] = 0
    with torch.no_grad():
        expected = theirs(**case.arguments, decoder_input_ids=ids, decoder_attention_mask=mask)
    inputs = numpy_of({**case.arguments, "decoder_input_ids": ids, "decoder_attention_mask": mask})
    got = ours(**inputs)
    assert isinstance(got, ragweave.tf.TFRetrievAugLMOutput)
    assert_close(got.logits, expected.logits)
    as_tuple = ours(inputs, return_dict=False)
    assert isinstance(as_tuple, tuple)
    assert_close(as_tuple[0], expected.logits)


@pytest.mark.parametrize("kind", KINDS)
def test_a_cache_and_encoded_contexts_continue(kind: str, tmp_path: Path):
    _, ours = pair("token", kind, 5, tmp_path)
    case = Case(4)
    ids = tokens(len(case.arguments["doc_scores"]), 6, seed=1).numpy()
    arguments = numpy_of(case.arguments)
    whole = ours(**arguments, decoder_input_ids=ids, do_marginalize=True)
    first = ours(**arguments, decoder_input_ids=ids[:, :4], do_marginalize=True)
    encoded = ours.rag.encode_contexts(ours.rag.prepare_contexts(**arguments))
    states = (first.generator_enc_last_hidden_state,)
    for encoder_outputs, mask in ((encoded, None), (states, arguments["context_attention_mask"])):
        rest = ours(
            encoder_outputs=encoder_outputs,
            context_attention_mask=mask,
            doc_scores=tensor(arguments["doc_scores"]),
            decoder_input_ids=ids[:, 4:],
            past_key_values=first.past_key_values,
            do_marginalize=True,
        )
        assert_close(rest.logits, array(whole.logits)[:, 4:])
        assert int(rest.past_key_values.length) == 6


def test_contexts_may_be_grouped_by_question(tmp_path: Path):
    _, ours = pair("sequence", "bart", 5, tmp_path)
    case = Case(6)
    inputs = {**numpy_of(case.arguments), "labels": case.labels.numpy()}
    expected = ours(**inputs).loss
    for name in ("context_input_ids", "context_attention_mask"):
        inputs[name] = inputs[name].reshape(*inputs["doc_scores"].shape, -1)
    assert_close(ours(**inputs).loss, expected)


def test_mixtures_are_distributions(tmp_path: Path):
    theirs, ours = pair("token", "bart", 5, tmp_path)
    case = Case(4)
    logits = theirs(**case.arguments, labels=case.labels).logits
    scores = case.arguments["doc_scores"]
    got = ours.marginalize(tensor(logits), tensor(scores))
    assert_close(got, theirs.marginalize(logits, scores))
    assert_close(ops.sum(ops.exp(got), axis=-1), np.ones(got.shape[:2]))
    with pytest.raises(ShapeError, match="doc_scores has shape"):
        ours.marginalize(tensor(logits), tensor(scores), n_docs=9)


@pytest.fixture(scope="module")
def model() -> Any:
    return OURS["token"](rag_config("bart", 0))


def test_the_missing_part_is_named(model: Any):
    inputs = numpy_of(Case(0).arguments)
    del inputs["doc_scores"]
    with pytest.raises(MissingContextError, match="doc_scores not given"):
        model(**inputs, labels=np.ones((1, 2), int))
    with pytest.raises(MissingContextError, match="set_retriever"):
        model(np.ones((1, 3), int), labels=np.ones((1, 2), int))
    with pytest.raises(MissingContextError, match="decoder_input_ids"):
        OURS["token"](rag_config("t5", 0))(**numpy_of(Case(0).arguments))
    with pytest.raises(MissingContextError, match="doc_scores"):
        model(encoder_outputs=(np.ones((3, 4, 8)),), decoder_input_ids=np.ones((1, 2), int))


def test_shapes_and_values_that_disagree_are_named(model: Any):
    case = Case(0)
    inputs, labels = numpy_of(case.arguments), case.labels.numpy()
    for name, value, message in (
        (
            "context_attention_mask",
            inputs["context_attention_mask"][:, 1:],
            "context_attention_mask has shape",
        ),
        ("context_input_ids", inputs["context_input_ids"][1:], "context_input_ids has"),
        ("context_input_ids", inputs["context_input_ids"][0], "expected .B.K, S."),
        ("doc_scores", inputs["doc_scores"] - np.inf, "-inf for all passages of question 0"),
        ("labels", labels[:, :, None], "labels has shape"),
        ("labels", np.repeat(labels, 2, axis=0), "one row of labels for every question"),
        ("labels", np.full_like(labels, 99), "labels holds 99; expected token ids from 0 to 39"),
        ("labels", np.full_like(labels, -1), "labels holds -1"),
        ("decoder_input_ids", labels[:, 1:], "the shape of labels"),
        ("n_docs", 9, "n_docs=9"),
    ):
        with pytest.raises(ShapeError, match=message):
            model(**{**inputs, "labels": labels, name: value})
    if len(inputs["doc_scores"]) > 1:
        with pytest.raises(ShapeError, match="expected B rows"):
            model.rag(**inputs, decoder_input_ids=np.ones((len(labels) + 1, 2), int))


def test_unknown_arguments_are_ignored_with_a_warning(model: Any):
    inputs = {**numpy_of(Case(0).arguments), "labels": Case(0).labels.numpy()}
    with pytest.warns(UserWarning, match=r"unknown argument.*lables"):
        got = model(**inputs, lables=1)
    assert_close(got.loss, model(**inputs).loss)


def test_custom_networks_without_a_configuration():
    config = rag_config("t5", 0)
    built = OURS["token"](config)
    again = OURS["sequence"](question_encoder=built.question_encoder, generator=built.generator, n_docs=2)
    assert again.generator is built.generator
    assert again.config.n_docs == 2
    with pytest.raises(ConfigurationError, match="Give a RagConfig"):
        OURS["token"]()
    with pytest.raises(ConfigurationError, match="give a RagConfig"):
        OURS["token"](config.generator)


def test_models_are_keras_models(model: Any):
    assert isinstance(model, keras.Model)
    assert len(model.trainable_variables) == len(model.variables) - len(model.non_trainable_variables)
    assert model.count_params() > 0
    assert TORCH["token"].__name__ == type(model).__name__.removeprefix("TF")


def test_bart_reads_the_contexts_if_there_is_no_decoder_input(tmp_path: Path):
    theirs, ours = pair("token", "bart", 7, tmp_path)
    size = theirs.question_encoder.config.projection_dim or theirs.question_encoder.config.hidden_size
    retriever = NumpyRetriever(dimension=size)
    theirs.set_retriever(retriever)
    ours.set_retriever(retriever)
    ids = tokens(2, 5, seed=1, vocabulary=30)
    for marginalize in (False, True):
        with torch.no_grad():
            expected = theirs(ids, do_marginalize=marginalize)
        assert_close(ours(ids.numpy(), do_marginalize=marginalize).logits, expected.logits)
    with torch.no_grad():
        assert_close(ours.rag(ids.numpy()).logits, theirs.rag(ids).logits)


@pytest.mark.parametrize("encoder", ["dpr", "bert"])
def test_the_question_encoder_is_called_as_in_transformers(encoder: str, tmp_path: Path):
    theirs, ours = pair("token", "t5", 2, tmp_path, encoder=encoder)
    ids = tokens(2, 5, seed=1, vocabulary=30)
    with torch.no_grad():
        expected = theirs.question_encoder(ids)
    for got in (
        ours.question_encoder(ids.numpy()),
        ours.question_encoder(ids.numpy(), token_type_ids=np.zeros((2, 5), int)),
    ):
        assert_close(got[0], expected[0])
        assert_close(got.pooler_output, expected.pooler_output)


@MODELS
def test_the_loss_of_transformers_name(formulation: str, kind: str, tmp_path: Path):
    theirs, ours = pair(formulation, kind, 4, tmp_path)
    case = Case(11)
    case.labels[:, 0] = 5 if theirs.rag.special_tokens.bos is None else theirs.rag.special_tokens.bos
    logits = theirs(**case.arguments, labels=case.labels).logits.detach()
    scores = case.arguments["doc_scores"]
    last = {"token": (scores.shape[1], True), "sequence": (True, scores.shape[1])}[formulation]
    for options in ((), (True,), (False, 0.1, *last), (True, 0.1)):
        expected = theirs.get_nll(logits, scores, case.labels, *options)
        assert_close(ours.get_nll(logits.numpy(), scores.numpy(), case.labels.numpy(), *options), expected)
    with pytest.raises(ShapeError, match="n_docs=9"):
        ours.get_nll(logits.numpy(), scores.numpy(), case.labels.numpy(), n_docs=9)


def test_the_loss_that_rag_sequence_inherits(tmp_path: Path):
    """In transformers 4: the mean over labels other than -100, as a vector of one number."""
    _, model = pair("sequence", "bart", 0, tmp_path)
    logits = torch.randn(2, 3, 40, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[5, 6, 2], [7, 1, -100]])
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    assert_close(model.hf_compute_loss(labels.numpy(), logits.numpy()), expected[None])


def test_cross_entropy_of_targets(model: Any):
    logits = torch.randn(2, 3, 40, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[5, 6, 2], [7, 1, 1]])  # 1 is BART's padding
    for smoothing in (0.0, 0.1):
        expected = torch.nn.functional.cross_entropy(
            logits[labels != 1], labels[labels != 1], reduction="none", label_smoothing=smoothing
        )
        assert_close(model.hf_compute_loss(labels.numpy(), logits.numpy(), smoothing), expected)
    probabilities = logits.softmax(-1).numpy()
    summed = model.hf_compute_loss(labels.numpy(), probabilities, from_logits=False, reduce_loss=True)
    expected = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=1, reduction="sum"
    )
    assert_close(summed, expected)


@MODELS
def test_embeddings_are_the_generators(formulation: str, kind: str, tmp_path: Path):
    theirs, ours = pair(formulation, kind, 3, tmp_path)
    for model in (ours, ours.rag):
        assert_close(model.get_input_embeddings().weight, theirs.generator.get_input_embeddings().weight)
        assert_close(model.get_output_embeddings().weight, theirs.generator.get_output_embeddings().weight)
