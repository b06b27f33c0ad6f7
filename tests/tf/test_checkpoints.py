"""Checkpoints: files, shards, old names, networks without a head, types, and errors for missing weights."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from keras import ops
from safetensors.numpy import load_file, save_file

from ragweave.errors import ModelNotFoundError
from ragweave.tf import checkpoints
from ragweave.tf.tf_pretrained import build_network
from tests.tf.support import (
    TORCH_CLASSES,
    array,
    assert_close,
    bart_config,
    encoder_config,
    loaded,
    t5_config,
    torch_network,
)


def assert_equal_weights(ours: object, theirs: torch.nn.Module) -> None:
    expected = {**dict(theirs.named_parameters()), **dict(theirs.named_buffers())}
    for name, variable in checkpoints.named_variables(ours):
        assert_close(variable.value, expected[name], 0)


@pytest.mark.parametrize(
    "config", [bart_config(0), t5_config(0), encoder_config(0)], ids=lambda c: c.model_type
)
def test_a_saved_file_is_loaded_by_torch(config: object, tmp_path: Path):
    theirs = torch_network(config)
    theirs.save_pretrained(tmp_path / "theirs")
    part = "question_encoder" if config.model_type == "dpr" else "generator"
    ours = loaded(build_network(part, config), tmp_path / "theirs")
    for size, files in (("5GB", 1), (3000, 2)):
        folder = tmp_path / str(size)
        folder.mkdir()
        config.save_pretrained(folder)
        tensors = {name: array(variable.value) for name, variable in checkpoints.named_variables(ours)}
        checkpoints.save(tensors, folder, max_shard_size=size)
        assert len(list(folder.glob("*.safetensors"))) >= files
        assert (folder / "model.safetensors.index.json").exists() == (files > 1)
        again, info = TORCH_CLASSES[config.model_type].from_pretrained(folder, output_loading_info=True)
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
        for name, expected in theirs.state_dict().items():
            assert torch.equal(again.state_dict()[name], expected)
        assert_equal_weights(loaded(build_network(part, config), folder), theirs)


def test_shards_of_transformers_are_read(tmp_path: Path):
    theirs = torch_network(t5_config(1))
    theirs.save_pretrained(tmp_path, max_shard_size="4KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert_equal_weights(loaded(build_network("generator", theirs.config), tmp_path), theirs)


def test_a_missing_shard_is_named(tmp_path: Path):
    theirs = torch_network(t5_config(1))
    theirs.save_pretrained(tmp_path, max_shard_size="4KB")
    lost = sorted(tmp_path.glob("*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(ModelNotFoundError, match=f"lacks {lost.name}"):
        checkpoints.open_checkpoint(tmp_path)


def test_a_checkpoint_without_head(tmp_path: Path):
    theirs = torch_network(bart_config(2))
    theirs.final_logits_bias.zero_()
    theirs.model.save_pretrained(tmp_path)  # its names lack "model."
    assert_equal_weights(loaded(build_network("generator", theirs.config), tmp_path), theirs)


def test_a_checkpoint_with_another_head_and_old_names(tmp_path: Path):
    config = encoder_config(0, "bert")
    theirs = transformers.BertForPreTraining(config)
    theirs.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    for new, name in old.items():
        tensors = {key.replace(new, name): value for key, value in tensors.items()}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert_equal_weights(loaded(build_network("question_encoder", config), tmp_path), theirs.bert)


def test_embeddings_stored_under_every_name(tmp_path: Path):
    """Folders of earlier versions of transformers store them this way."""
    theirs = torch_network(bart_config(2))
    tensors = {name: value.detach().numpy() for name, value in theirs.state_dict().items()}
    assert "model.encoder.embed_tokens.weight" in tensors
    save_file(tensors, tmp_path / "model.safetensors")
    ours = loaded(build_network("generator", theirs.config), tmp_path)
    assert_equal_weights(ours, theirs)
    assert (
        len(
            [
                name
                for name, _ in checkpoints.named_variables(ours)
                if "embed_tokens" in name or "lm_head" in name
            ]
        )
        == 0
    )


def test_embeddings_stored_under_another_name(tmp_path: Path):
    theirs = torch_network(t5_config(2))
    tensors = {name: value.detach().numpy() for name, value in theirs.state_dict().items()}
    for name in ("shared.weight", "lm_head.weight", "encoder.embed_tokens.weight"):
        del tensors[name]
    save_file(tensors, tmp_path / "model.safetensors")
    assert_equal_weights(loaded(build_network("generator", theirs.config), tmp_path), theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_files_of_other_types_are_read(dtype: torch.dtype, tmp_path: Path):
    theirs = torch_network(t5_config(2)).to(dtype)
    theirs.save_pretrained(tmp_path)
    assert_equal_weights(loaded(build_network("generator", theirs.config), tmp_path), theirs.float())


def test_torch_files_are_read(tmp_path: Path):
    theirs = torch_network(bart_config(0))
    torch.save(theirs.to(torch.bfloat16).state_dict(), tmp_path / "pytorch_model.bin")
    assert_equal_weights(loaded(build_network("generator", theirs.config), tmp_path), theirs.float())


def test_torch_files_execute_nothing(tmp_path: Path):
    torch.save({"x": np.array([object()], dtype=object)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        checkpoints.open_checkpoint(tmp_path)


def test_missing_weights_are_named(tmp_path: Path):
    theirs = torch_network(t5_config(0))
    theirs.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["encoder.final_layer_norm.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(
        ModelNotFoundError, match=r"has no encoder.final_layer_norm.weight: it is not a checkpoint of T5"
    ):
        loaded(build_network("generator", theirs.config), tmp_path)


def test_weights_of_another_shape_are_named(tmp_path: Path):
    torch_network(bart_config(0)).save_pretrained(tmp_path)
    with pytest.raises(ModelNotFoundError, match=r"has shape .* its configuration asks for"):
        loaded(build_network("generator", bart_config(0, vocab_size=50)), tmp_path)


def test_a_folder_without_weights(tmp_path: Path):
    with pytest.raises(
        ModelNotFoundError, match=r"neither model.safetensors nor model.safetensors.index.json"
    ):
        checkpoints.open_checkpoint(tmp_path)


def test_unused_weights_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    save_file({"stranger": np.ones(2), "bert.position_ids": np.ones(2)}, tmp_path / "model.safetensors")
    with caplog.at_level(logging.WARNING), checkpoints.open_checkpoint(tmp_path) as checkpoint:
        checkpoints.report_unused(checkpoint, set(), "folder")
    assert "stranger" in caplog.text
    assert "position_ids" not in caplog.text


def test_fresh_weights_have_the_standard_deviations_of_transformers():
    config = t5_config(0, d_model=64, d_ff=64, num_heads=4, d_kv=16, initializer_factor=0.5)
    theirs, ours = transformers.T5ForConditionalGeneration(config), build_network("generator", config)
    expected = dict(theirs.named_parameters())
    for name, variable in checkpoints.named_variables(ours):
        if len(variable.shape) == 2 and "relative" not in name:
            ratio = float(ops.std(variable.value)) / float(expected[name].detach().std())
            assert 0.8 < ratio < 1.25, name
