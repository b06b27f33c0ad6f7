"""RagConfig: defaults, invalid values, its two networks, saving and loading."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers as tf

from ragweave import RagConfig
from ragweave.errors import ConfigurationError
from tests.support import models

pytestmark = pytest.mark.usefixtures("quiet_transformers")


def test_networks_default_to_dpr_and_bart() -> None:
    config = RagConfig()
    assert config.question_encoder.model_type == "dpr"
    assert config.generator.model_type == "bart"
    assert config.model_type == "rag"
    assert not config.generator_is_causal


def test_defaults() -> None:
    config = RagConfig()
    expected = {
        "title_sep": " / ",
        "doc_sep": " // ",
        "answer_sep": "",
        "n_docs": 5,
        "max_combined_length": 300,
        "retrieval_vector_size": 768,
        "retrieval_batch_size": 8,
        "dataset": "wiki_dpr",
        "dataset_split": "train",
        "index_name": "compressed",
        "do_deduplication": True,
        "reduce_loss": False,
        "label_smoothing": 0.0,
        "doc_score_scale": 1.0,
        "question_encoder_pooling": None,
        "question_encoder_normalize": False,
        "extractive": False,
        "passage_encoder_fingerprint": None,
    }
    assert {name: getattr(config, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"index_name": "exakt"}, r"index_name is 'exakt'; choose one of 'exact', 'compressed'"),
        ({"n_docs": 0}, r"n_docs is 0; it must be 1 or more"),
        ({"max_combined_length": -1}, r"max_combined_length is -1"),
        ({"retrieval_vector_size": 0}, r"retrieval_vector_size is 0"),
        ({"retrieval_batch_size": 0}, r"retrieval_batch_size is 0"),
        ({"label_smoothing": 1.0}, r"label_smoothing is 1.0; it must lie in \[0, 1\)"),
        ({"label_smoothing": -0.1}, r"label_smoothing is -0.1"),
        ({"doc_score_scale": 0.0}, r"doc_score_scale is 0.0; it must be above 0"),
        ({"doc_score_scale": -2.0}, r"doc_score_scale is -2.0"),
        ({"retrieval": "sparse"}, r"retrieval is 'sparse'; choose one of 'dense', 'bm25', 'hybrid'"),
        ({"dense_weight": 1.5}, r"dense_weight is 1.5; it must lie in \[0, 1\]"),
        ({"n_docs": "5"}, r"'n_docs' expected int, got str \(value: '5'\)"),
        ({"use_cache": "maybe"}, r"'use_cache' expected bool, got str"),
        ({"title_sep": 3}, r"'title_sep' expected str, got int"),
        ({"index_name": None}, r"'index_name' expected str, got NoneType"),
        ({"passage_encoder_fingerprint": 3}, r"'passage_encoder_fingerprint'.*expected str, got int"),
        ({"label_smoothing": "a"}, r"'label_smoothing'.*expected float, got str"),
        ({"generator": {"model_type": "no-such-model"}}, r"generator has model_type 'no-such-model'"),
    ],
)
def test_values_that_cannot_work_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        RagConfig(**fields)


def test_a_pooling_that_does_not_exist_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"question_encoder_pooling is 'max'; choose one of"):
        RagConfig(question_encoder_pooling="max")


def test_whole_numbers_will_do_where_fractions_are_expected() -> None:
    config = RagConfig(doc_score_scale=20, label_smoothing=0)
    assert config.doc_score_scale == 20
    assert config.label_smoothing == 0


def test_paths_may_be_paths(tmp_path: Path) -> None:
    paths = {name: tmp_path / name for name in ("dataset", "index_path", "passages_path")}
    RagConfig(**paths).save_pretrained(tmp_path)
    loaded = RagConfig.from_pretrained(tmp_path)
    assert {name: getattr(loaded, name) for name in paths} == {
        name: str(path) for name, path in paths.items()
    }


@pytest.mark.parametrize("generator", models.GENERATORS)
def test_a_generator_is_causal_where_it_has_no_encoder(generator: str) -> None:
    config = models.rag_config(generator)
    assert config.generator_is_causal == (generator in models.CAUSAL)
    assert type(config.generator) is type(models.generator_config(generator))


def test_networks_may_be_given_as_configurations_or_dictionaries() -> None:
    encoder, generator = models.question_encoder_config("bert"), models.generator_config("llama")
    by_object = RagConfig(question_encoder=encoder, generator=generator)
    by_dictionary = RagConfig(question_encoder=encoder.to_dict(), generator=generator.to_dict())
    combined = RagConfig.from_question_encoder_generator_configs(encoder, generator, n_docs=2)
    assert by_object.generator is generator
    for config in (by_dictionary, combined):
        assert config.generator.to_dict() == generator.to_dict()
        assert config.question_encoder.to_dict() == encoder.to_dict()
    assert combined.n_docs == 2


def test_dictionaries_of_the_caller_are_left_alone() -> None:
    fields = {"d_model": 16}
    config = RagConfig(generator=fields)
    assert config.generator.d_model == 16
    assert config.generator.model_type == "bart"
    assert fields == {"d_model": 16}


@pytest.mark.parametrize("generator", models.GENERATORS)
def test_a_saved_configuration_loads_as_it_was(generator: str, tmp_path: Path) -> None:
    config = models.rag_config(
        generator,
        "bert",
        n_docs=7,
        answer_sep="\nAnswer:",
        doc_score_scale=30.0,
        question_encoder_pooling="mean",
        question_encoder_normalize=True,
        index_name="custom",
        prefix="q: ",
        passage_encoder_fingerprint="0a1b",
    )
    config.save_pretrained(tmp_path)
    loaded = RagConfig.from_pretrained(tmp_path)
    for name in (
        "n_docs",
        "answer_sep",
        "doc_score_scale",
        "prefix",
        "index_name",
        "passage_encoder_fingerprint",
    ):
        assert getattr(loaded, name) == getattr(config, name)
    assert loaded.question_encoder_pooling == "mean"
    assert loaded.question_encoder_normalize is True
    assert loaded.generator.to_dict() == config.generator.to_dict()
    assert loaded.question_encoder.to_dict() == config.question_encoder.to_dict()
    assert RagConfig.from_pretrained(tmp_path, n_docs=2).n_docs == 2


def test_a_saved_value_that_cannot_work_is_named_on_loading(tmp_path: Path) -> None:
    models.rag_config().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"n_docs": 0}))
    with pytest.raises(ConfigurationError, match="n_docs is 0"):
        RagConfig.from_pretrained(tmp_path)


def test_transformers_reads_a_saved_configuration(tmp_path: Path) -> None:
    models.rag_config("llama", n_docs=4, doc_score_scale=9.0).save_pretrained(tmp_path)
    theirs = tf.AutoConfig.from_pretrained(tmp_path)
    assert isinstance(theirs, tf.RagConfig)
    assert theirs.n_docs == 4
    assert theirs.generator.model_type == "llama"


@pytest.mark.parametrize(
    "field", [{"n_docs": -1}, {"n_docs": "5"}, {"retrieval_batch_size": 0}, {"index_name": "x"}]
)
def test_values_given_when_loading_are_checked(tmp_path: Path, field: dict[str, Any]) -> None:
    RagConfig().save_pretrained(tmp_path)
    with pytest.raises(ConfigurationError, match=next(iter(field))):
        RagConfig.from_pretrained(tmp_path, **field)
    assert RagConfig.from_pretrained(tmp_path, n_docs=7, index_path=tmp_path).index_path == str(tmp_path)


def test_saving_keeps_what_an_earlier_save_into_the_folder_knows(tmp_path: Path) -> None:
    (tmp_path / "passages").mkdir()
    (tmp_path / "index.faiss").touch()
    RagConfig(index_name="custom", passages_path="passages", index_path="index.faiss").save_pretrained(
        tmp_path
    )
    model_config = RagConfig(architectures=["RagTokenForGeneration"])
    model_config.save_pretrained(tmp_path)
    loaded = RagConfig.from_pretrained(tmp_path)
    assert (loaded.index_name, loaded.passages_path) == ("custom", "passages")
    RagConfig(index_name="exact").save_pretrained(tmp_path / "other")
    RagConfig(n_docs=3).save_pretrained(tmp_path)
    loaded = RagConfig.from_pretrained(tmp_path)
    assert (loaded.architectures, loaded.n_docs) == (["RagTokenForGeneration"], 3)
    assert model_config.index_name == "compressed"  # what is saved is a copy
