"""Folders in the layout of facebook/rag-*: loaded here and by transformers, the same answers to the last token.

What those repositories hold: ``config.json`` with both networks' configurations inside it and settings of
generation beside them; ``pytorch_model.bin``, or safetensors; vocabularies of slow tokenizers in two subfolders;
neither tokenizer.json nor generation_config.json.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from safetensors.torch import save_file

import ragweave
from tests.parity.oracle import ORACLES
from tests.support import models, retrieval

pytestmark = pytest.mark.usefixtures("quiet_transformers")

GENERATION = {
    "num_beams": 4,
    "max_length": 50,
    "bad_words_ids": [[0, 0]],
    "early_stopping": False,
    "min_length": 1,
}
SPECIAL = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
WEIGHTS = pytest.mark.parametrize("weights", ["pytorch_model.bin", "model.safetensors"])
FORMULATIONS = pytest.mark.parametrize("formulation", models.FORMULATIONS)
QUESTION = "Where is Paris?"


def write_released(folder: Path, formulation: str, weights: str) -> Path:
    """A checkpoint of random weights as the released ones are."""
    folder.mkdir()
    config = tf.RagConfig.from_question_encoder_generator_configs(
        models.question_encoder_config(),
        models.generator_config("bart", len(retrieval.generator_tokenizer())),
        retrieval_vector_size=models.DIMENSION,
        max_combined_length=60,
        **SPECIAL,
    )
    model = ORACLES[formulation](config)
    models.randomise(model, 0)
    if weights == "pytorch_model.bin":
        torch.save(model.state_dict(), folder / weights)
    else:
        distinct = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        save_file(distinct, folder / weights, metadata={"format": "pt"})
    saved = config.to_dict() | GENERATION | {"architectures": [type(model).__name__]}
    (folder / "config.json").write_text(json.dumps(saved))
    write_question_tokenizer(folder / "question_encoder_tokenizer")
    write_generator_tokenizer(folder / "generator_tokenizer")
    return folder


def write_question_tokenizer(folder: Path) -> None:
    folder.mkdir()
    words = retrieval.question_tokenizer().get_vocab()
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in sorted(words, key=words.__getitem__)))
    names = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
    special = {f"{name}_token": token for name, token in names.items()}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True, **special}))


def write_generator_tokenizer(folder: Path) -> None:
    folder.mkdir()
    model = json.loads(retrieval.generator_tokenizer().backend_tokenizer.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    lines = [" ".join(pair) for pair in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *lines, ""]))
    names = {"bos": "<s>", "eos": "</s>", "unk": "<unk>", "sep": "</s>", "pad": "<pad>", "cls": "<s>"}
    special = {f"{name}_token": token for name, token in names.items()}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 1024}))


def assert_same_weights(model: Any, folder: Path, formulation: str) -> None:
    expected = ORACLES[formulation].from_pretrained(folder).state_dict()
    got = model.state_dict()
    assert set(got) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(got[name], tensor), name


@WEIGHTS
@FORMULATIONS
def test_weights_and_generation_settings(formulation: str, weights: str, tmp_path: Path) -> None:
    folder = write_released(tmp_path / "released", formulation, weights)
    model = models.CLASSES[formulation].from_pretrained(folder)
    assert_same_weights(model, folder, formulation)
    found = model.generation_config.to_dict()
    assert {name: found[name] for name in (*GENERATION, *SPECIAL)} == GENERATION | SPECIAL


@WEIGHTS
def test_rag_token_answers_a_question_as_transformers_does(weights: str, tmp_path: Path) -> None:
    """From the question to the answer, with nothing but the folder and a data set of passages."""
    folder = write_released(tmp_path / "released", "token", weights)
    answers = []
    for library in (tf, ragweave):
        retriever = library.RagRetriever.from_pretrained(
            folder, index_name="custom", indexed_dataset=retrieval.dataset(), dataset="none"
        )
        model = library.RagTokenForGeneration.from_pretrained(folder, retriever=retriever)
        tokenizer = library.RagTokenizer.from_pretrained(folder)
        question = tokenizer(QUESTION, return_tensors="pt")["input_ids"]
        answers.append((question.tolist(), model.generate(question).tolist()))
    assert answers[1] == answers[0]


@FORMULATIONS
def test_saved_again_it_opens_in_transformers(formulation: str, tmp_path: Path) -> None:
    folder = write_released(tmp_path / "released", formulation, "pytorch_model.bin")
    models.CLASSES[formulation].from_pretrained(folder).save_pretrained(tmp_path / "again")
    ragweave.RagTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "again")
    theirs = ORACLES[formulation].from_pretrained(tmp_path / "again")
    assert_same_weights(theirs, folder, formulation)
    saved = json.loads((tmp_path / "again" / "generation_config.json").read_text())
    assert {name: saved[name] for name in GENERATION} == GENERATION
    before, after = (tf.RagTokenizer.from_pretrained(path) for path in (folder, tmp_path / "again"))
    assert after.generator(QUESTION)["input_ids"] == before.generator(QUESTION)["input_ids"]
    assert after.question_encoder(QUESTION)["input_ids"] == before.question_encoder(QUESTION)["input_ids"]


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_weights_that_carry_code_are_refused_and_run_nothing(tmp_path: Path) -> None:
    folder = write_released(tmp_path / "released", "token", "pytorch_model.bin")
    trace = tmp_path / "trace"
    torch.save({"rag.generator.final_logits_bias": Payload(trace)}, folder / "pytorch_model.bin")
    with pytest.raises(pickle.UnpicklingError, match=r"[Ww]eights"):
        ragweave.RagTokenForGeneration.from_pretrained(folder)
    assert not trace.exists()
