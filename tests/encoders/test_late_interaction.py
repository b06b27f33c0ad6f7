"""LateInteractionReranker: MaxSim computed by hand, for the folders of sentence-transformers and of PyLate."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer
from typer.testing import CliRunner

from ragweave import KnowledgeBase
from ragweave.cli import app
from ragweave.encoders.cross_encoder import Reranker
from ragweave.encoders.late_interaction import LateInteractionReranker, load_reranker
from ragweave.errors import ConfigurationError, ModelNotFoundError, ModelOutputError
from tests.support.encoders import write_json

QUESTIONS = ["capital of peru", "a river"]
DOCS = [
    {
        "title": ["Peru", "", "Ulm"],
        "text": ["Lima is the capital.", "A river, a river.", "On the danube " * 40],
    },
    {"title": ["Nile"], "text": ["The Nile is a river."]},
]
LENGTHS = {"query_length": 12, "document_length": 20}


@pytest.fixture
def folder(tmp_path, tiny_encoder_path):
    """A model that reads 12 tokens of questions and 20 of passages, of which commas and full stops do not count."""
    torch.manual_seed(0)
    backbone = Transformer(str(tiny_encoder_path), **LENGTHS)
    dense = Dense(
        16, 8, bias=False, activation_function=torch.nn.Identity(), module_input_name="token_embeddings"
    )
    mask = MultiVectorMask(skiplist_words=[",", "."])
    modules = [backbone, dense, mask, Normalize(module_input_name="token_embeddings")]
    prompts = {"query": "the ", "document": "of "}
    MultiVectorEncoder(modules=modules, prompts=prompts, device="cpu").save_pretrained(
        str(tmp_path / "model")
    )
    return tmp_path / "model"


def as_pylate(folder):
    """The same model with the files that PyLate writes."""
    modules = json.loads((folder / "modules.json").read_text())[:2]
    modules[0]["type"] = "sentence_transformers.models.Transformer"
    modules[1]["type"] = "pylate.models.Dense.Dense"
    write_json(folder / "modules.json", modules)
    dense = {"in_features": 16, "out_features": 8, "bias": False}
    identity = "torch.nn.modules.linear.Identity"
    write_json(folder / modules[1]["path"] / "config.json", {**dense, "activation_function": identity})
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 48, "do_lower_case": False})
    config = {"query_prefix": "the ", "document_prefix": "of ", "skiplist_words": [",", "."]}
    settings = {"model_type": "ColBERT", "do_query_expansion": False, **LENGTHS, **config}
    write_json(folder / "config_sentence_transformers.json", settings)


def by_hand(folder, encoder_path, question, title, text):
    model, tokenizer = AutoModel.from_pretrained(encoder_path), AutoTokenizer.from_pretrained(encoder_path)
    (weights,) = (path for path in folder.glob("*/model.safetensors"))
    from safetensors.torch import load_file

    def vectors(text, length):
        encoded = tokenizer(text, truncation=True, max_length=length, return_tensors="pt")
        with torch.inference_mode():
            states = model(**encoded).last_hidden_state[0]
        return encoded["input_ids"][0], normalize(states @ load_file(weights)["linear.weight"].T, dim=-1)

    _, asked = vectors("the " + question, 12)
    ids, passage = vectors(f"of {title} {text}".replace("  ", " "), 20)
    counted = ~torch.isin(ids, torch.tensor(tokenizer.convert_tokens_to_ids([",", "."])))
    return float((asked @ passage[counted].T).max(dim=1).values.sum())


@pytest.mark.parametrize("layout", ["sentence-transformers", "pylate"])
def test_scores_are_maxsim(folder, tiny_encoder_path, layout):
    if layout == "pylate":
        as_pylate(folder)
    scores = load_reranker(folder).score(QUESTIONS, [*DOCS])
    assert [len(logits) for logits in scores] == [3, 1]
    expected = [
        by_hand(folder, tiny_encoder_path, question, title, text)
        for question, doc in zip(QUESTIONS, DOCS, strict=True)
        for title, text in zip(doc["title"], doc["text"], strict=True)
    ]
    assert np.concatenate(scores) == pytest.approx(expected, abs=1e-4)
    assert scores[0].dtype == np.float32
    none = load_reranker(folder).score(["river"], [{"title": [], "text": []}])
    assert [len(logits) for logits in none] == [0]


def test_the_command_reranks(folder, tmp_path, tiny_encoder):
    (tmp_path / "notes").mkdir()
    for number, text in enumerate(("Lima is the capital.", "A river.", "Ulm on the danube.")):
        (tmp_path / "notes" / f"{number}.txt").write_text(text)
    KnowledgeBase.build([tmp_path / "notes"], tmp_path / "kb", encoder=tiny_encoder)
    command = [
        "search",
        str(tmp_path / "kb"),
        "--json",
        "--retrieval",
        "bm25",
        "--rerank",
        str(folder),
        "a river",
    ]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    passages = json.loads(result.stdout)["passages"]
    docs = {name: [passage[name] for passage in passages] for name in ("title", "text")}
    (logits,) = load_reranker(folder).score(["a river"], [docs])
    assert [passage["doc_score"] for passage in passages] == pytest.approx(logits.tolist(), abs=1e-4)
    assert logits.tolist() == sorted(logits, reverse=True)
    assert np.log([passage["prior"] for passage in passages]) == pytest.approx(
        torch.log_softmax(torch.tensor(logits), 0).numpy(), abs=1e-4
    )


def test_other_models(folder, tiny_encoder_path, tmp_path):
    with pytest.raises(ModelNotFoundError, match="lack 2 weights of a cross-encoder, such as 'classifier"):
        load_reranker(tiny_encoder_path)  # neither kind
    with pytest.raises(ModelNotFoundError, match="No reranker could be loaded"):
        load_reranker(tmp_path / "nothing")
    with pytest.raises(ModelNotFoundError, match="lack 2 weights"):
        Reranker.from_pretrained(tiny_encoder_path)
    settings = json.loads((folder / "sentence_bert_config.json").read_text())
    attention = {"model_args": {"attn_implementation": "someone/kernel"}}
    write_json(folder / "sentence_bert_config.json", {**settings, **attention})
    with pytest.raises(ConfigurationError, match="kernel from the hub"):
        load_reranker(folder)
    modules = json.loads((folder / "modules.json").read_text())
    write_json(folder / "modules.json", [*modules, {"type": "own.Code", "path": "4_Code"}])
    with pytest.raises(ConfigurationError, match=r"not support \(Code\)"):
        load_reranker(folder)


def test_scores_that_are_no_numbers(folder):
    reranker = LateInteractionReranker.from_pretrained(folder)
    with torch.no_grad():
        next(reranker.model.parameters()).fill_(float("inf"))
    with pytest.raises(ModelOutputError, match="NaN or infinite"):
        reranker.score(QUESTIONS, DOCS)
