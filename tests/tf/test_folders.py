"""Folders load in the torch classes and in these; pretrained networks combine into a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import ragweave
import ragweave.tf
from ragweave.errors import ConfigurationError, ModelNotFoundError
from tests.parity.oracle import ORACLES
from tests.tf.parity import (
    FORMULATIONS,
    KINDS,
    OURS,
    TORCH,
    Case,
    NumpyRetriever,
    numpy_of,
    pair,
    torch_model,
)
from tests.tf.support import GENERATOR_CONFIGS, assert_close, bart_config, encoder_config, torch_network

MODELS = pytest.mark.parametrize(("formulation", "kind"), [(f, k) for f in FORMULATIONS for k in KINDS])


def assert_equal_losses(theirs: Any, ours: Any) -> None:
    case = Case(1)
    with torch.no_grad():
        expected = theirs(
            **case.arguments, labels=case.labels.clamp(min=5), n_docs=case.arguments["doc_scores"].shape[1]
        )
    got = ours(**numpy_of(case.arguments), labels=case.labels.clamp(min=5).numpy())
    assert_close(got.logits, expected.logits)


@MODELS
def test_folders_of_transformers_load_here(formulation: str, kind: str, tmp_path: Path):
    config = transformers.RagConfig.from_question_encoder_generator_configs(
        # transformers' RAG-Sequence reads a BOS token, which T5 lacks, unless there is one here.
        encoder_config(0),
        GENERATOR_CONFIGS[kind](0),
        n_docs=3,
        bos_token_id=39,
    )
    theirs = ORACLES[formulation](config).eval()
    theirs.save_pretrained(tmp_path)
    assert_equal_losses(theirs, OURS[formulation].from_pretrained(tmp_path))


@MODELS
def test_what_is_saved_here_loads_in_both(formulation: str, kind: str, tmp_path: Path):
    theirs, ours = pair(formulation, kind, 3, tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "whole")
    ours.save_pretrained(tmp_path / "shards", max_shard_size="5KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    for folder in (tmp_path / "whole", tmp_path / "shards"):
        for torch_class in (TORCH[formulation], ORACLES[formulation]):
            again, info = torch_class.from_pretrained(folder, output_loading_info=True)
            assert not info["missing_keys"]
            assert not info["unexpected_keys"]
            for name, value in theirs.state_dict().items():
                assert torch.equal(again.state_dict()[name], value)
            written, read = theirs.config.generator.to_dict(), again.config.generator.to_dict()
            assert {**read, "dtype": None} == {**written, "dtype": None}
    saved = ragweave.RagConfig.from_pretrained(tmp_path / "whole")
    assert saved.architectures == [type(theirs).__name__]


def test_a_head_of_its_own_is_kept_there_and_back(tmp_path: Path):
    theirs = torch_model("token", "t5", 1)
    theirs.generator.lm_head.weight = torch.nn.Parameter(torch.randn_like(theirs.generator.lm_head.weight))
    theirs.save_pretrained(tmp_path / "theirs")
    ours = OURS["token"].from_pretrained(tmp_path / "theirs")
    assert_equal_losses(theirs, ours)
    ours.save_pretrained(tmp_path / "ours")
    again = TORCH["token"].from_pretrained(tmp_path / "ours")
    assert torch.equal(again.generator.lm_head.weight, theirs.generator.lm_head.weight)


def test_a_folder_of_one_class_loads_in_another(tmp_path: Path):
    theirs = torch_model("token", "bart", 0)
    theirs.rag.save_pretrained(tmp_path / "without")
    theirs.save_pretrained(tmp_path / "with")
    for name in ("without", "with"):
        assert_equal_losses(theirs, OURS["token"].from_pretrained(tmp_path / name))
        rag = ragweave.tf.TFRagModel.from_pretrained(tmp_path / name)
        assert rag.rag is rag
        rag.save_pretrained(tmp_path / "again" / name)
        _, info = ragweave.RagModel.from_pretrained(tmp_path / "again" / name, output_loading_info=True)
        assert not info["missing_keys"]


def test_configuration_and_retriever_are_given_on_loading(tmp_path: Path):
    torch_model("sequence", "bart", 0).save_pretrained(tmp_path)
    retriever = NumpyRetriever()
    model = OURS["sequence"].from_pretrained(
        str(tmp_path), retriever=retriever, n_docs=7, local_files_only=True
    )
    assert model.config.n_docs == model.rag.config.n_docs == 7
    assert model.retriever is retriever
    config = ragweave.RagConfig.from_pretrained(tmp_path, n_docs=9)
    assert OURS["sequence"].from_pretrained(tmp_path, config=config).config.n_docs == 9
    with pytest.raises(ConfigurationError, match="either config or fields"):
        OURS["sequence"].from_pretrained(tmp_path, config=config, n_docs=7)
    with pytest.raises(TypeError, match=r"unknown argument.*n_doc"):
        OURS["sequence"].from_pretrained(tmp_path, n_doc=7)


def test_from_pt_is_accepted(tmp_path: Path):
    theirs = torch_model("sequence", "bart", 0)
    theirs.save_pretrained(tmp_path / "whole")
    assert_equal_losses(theirs, OURS["sequence"].from_pretrained(tmp_path / "whole", from_pt=True))
    theirs.question_encoder.save_pretrained(tmp_path / "encoder")
    theirs.generator.save_pretrained(tmp_path / "generator")
    combined = OURS["sequence"].from_pretrained_question_encoder_generator(
        tmp_path / "encoder",
        tmp_path / "generator",
        question_encoder_from_pt=True,
        generator_from_pt=True,
        n_docs=3,
    )
    assert_equal_losses(theirs, combined)


def test_settings_of_decoding_are_kept(tmp_path: Path):
    theirs = torch_model("token", "bart", 0)
    theirs.generation_config.num_beams = 3
    theirs.save_pretrained(tmp_path / "theirs")
    ours = OURS["token"].from_pretrained(tmp_path / "theirs")
    assert ours.generation_config.num_beams == 3
    ours.save_pretrained(tmp_path / "ours")
    assert TORCH["token"].from_pretrained(tmp_path / "ours").generation_config.num_beams == 3


@MODELS
def test_two_models_are_put_together(formulation: str, kind: str, tmp_path: Path):
    parts = torch_network(encoder_config(2)), torch_network(GENERATOR_CONFIGS[kind](2))
    paths = tmp_path / "encoder", tmp_path / "generator"
    for part, path in zip(parts, paths, strict=True):
        part.save_pretrained(path)
    names = [str(path) for path in paths]
    retriever = NumpyRetriever()
    build = "from_pretrained_question_encoder_generator"
    theirs = getattr(TORCH[formulation], build)(*names, n_docs=2)
    ours = getattr(OURS[formulation], build)(*paths, retriever=retriever, n_docs=2, generator_use_cache=False)
    assert ours.config.n_docs == 2
    assert ours.retriever is retriever
    assert not ours.generator.config.use_cache
    assert_equal_losses(theirs, ours)
    again = getattr(OURS[formulation], build)(
        question_encoder_model=ours.question_encoder, generator_model=ours.generator, config=ours.config
    )
    assert again.generator is ours.generator
    again = getattr(OURS[formulation], build)(*paths, generator_config=ours.generator.config)
    assert not again.generator.config.use_cache


def test_ends_of_a_generator_are_taken_over(tmp_path: Path):
    encoder, generator = torch_network(encoder_config(2)), torch_network(bart_config(2))
    generator.generation_config.eos_token_id = [2, 7]
    encoder.save_pretrained(tmp_path / "encoder")
    generator.save_pretrained(tmp_path / "generator")
    for cls in (TORCH["token"], OURS["token"]):
        model = cls.from_pretrained_question_encoder_generator(
            str(tmp_path / "encoder"), str(tmp_path / "generator")
        )
        assert model.generation_config.eos_token_id == [2, 7]


def test_what_cannot_be_loaded_is_named(tmp_path: Path):
    model = OURS["token"]
    with pytest.raises(ModelNotFoundError, match="No model could be found under"):
        model.from_pretrained(tmp_path / "nowhere", local_files_only=True)
    torch_network(bart_config(0)).save_pretrained(tmp_path)
    with pytest.raises(ModelNotFoundError, match="model_type 'bart', which is not a RAG model"):
        model.from_pretrained(tmp_path)
    build = model.from_pretrained_question_encoder_generator
    with pytest.raises(ConfigurationError, match="question_encoder_pretrained_model_name_or_path"):
        build(None, tmp_path)
    with pytest.raises(ConfigurationError, match="no question_encoder of type 'bart'"):
        build(tmp_path, tmp_path)
    with pytest.raises(ModelNotFoundError, match="No model could be found under"):
        build(tmp_path / "nowhere", tmp_path, question_encoder_local_files_only=True)
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ConfigurationError, match="is a file"):
        pair("token", "bart", 0, tmp_path / "x")[1].save_pretrained(file)


@pytest.mark.parametrize("kind", ["llama", "pegasus"])
def test_other_architectures_are_refused_by_name(kind: str, tmp_path: Path):
    from tests.support.models import rag_model

    rag_model(ragweave.RagTokenForGeneration, kind).save_pretrained(tmp_path)
    with pytest.raises(ConfigurationError, match=f"no generator of type '{kind}'; it has bart and t5"):
        OURS["token"].from_pretrained(tmp_path)
