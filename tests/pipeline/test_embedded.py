"""The embedded model on documents that no model has seen: the right passage first, and mostly the right answer."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import peft
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from ragweave import KnowledgeBase, RagPipeline, TextEncoder, model_files
from ragweave.evaluation.evaluate import evaluate
from ragweave.evaluation.run_folder import RunSettings
from ragweave.matching import f1
from ragweave.pipeline import embedded
from ragweave.types import Example
from tests.support.models import generator_config, randomise
from tests.support.terminal import in_terminal

DOCUMENTS = {
    "lighthouse.txt": (
        "The lighthouse of Vellmar was built in 1887 by the engineer Ottilie Brandt. It stands 43 metres tall on "
        "the northern cape and its lamp can be seen from 19 miles away. The last keeper, Jonas Feld, retired in "
        "1974, when the lamp was made automatic."
    ),
    "orchard.md": (
        "# The Quillon orchard\n\nThe Quillon orchard grows eleven kinds of pear. Its best known one is the Amber "
        "Duchess, which ripens in late September. The orchard belongs to Marta Quillon, who bought it in 2003 from "
        "the monastery of Saint Oda."
    ),
    "ferry.txt": (
        "The ferry Pelikan crosses the Sund every forty minutes. A ticket costs 6 crowns for adults, and children "
        "travel free. The ferry carries at most 180 passengers and 22 cars, and its home port is Trellin."
    ),
    "robot.txt": (
        "Project Marsh Hare is a robot that plants mangroves. It was designed at the Tarsis Institute in Lunde and "
        "can plant 900 seedlings a day. Its battery lasts for seven hours, and it weighs 64 kilograms."
    ),
    "choir.txt": (
        "The Halden Choir was founded in 1951 by the teacher Ingrid Solberg. It rehearses on Thursday evenings in "
        "the old customs house. Its present conductor is Pavel Marek, and it has 58 singers."
    ),
}
QUESTIONS = {
    "Who built the lighthouse of Vellmar?": (
        "lighthouse.txt",
        ("Ottilie Brandt", "the engineer Ottilie Brandt"),
    ),
    "How tall is the lighthouse of Vellmar?": ("lighthouse.txt", ("43 metres", "43 metres tall")),
    "Who was the last keeper of the lighthouse?": ("lighthouse.txt", ("Jonas Feld",)),
    "Who owns the Quillon orchard?": ("orchard.md", ("Marta Quillon",)),
    "How many kinds of pear grow in the Quillon orchard?": ("orchard.md", ("eleven",)),
    "What does a ticket for the ferry Pelikan cost?": ("ferry.txt", ("6 crowns",)),
    "What is the home port of the ferry?": ("ferry.txt", ("Trellin",)),
    "What does the robot Marsh Hare plant?": ("robot.txt", ("mangroves",)),
    "How many seedlings can Marsh Hare plant in a day?": ("robot.txt", ("900", "900 seedlings")),
    "Who conducts the Halden Choir?": ("choir.txt", ("Pavel Marek",)),
    "When was the Halden Choir founded?": ("choir.txt", ("1951",)),
    "How many singers are in the Halden Choir?": ("choir.txt", ("58", "58 singers")),
}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory, quiet_transformers: None) -> RagPipeline:
    folder = tmp_path_factory.mktemp("new")
    for name, text in DOCUMENTS.items():
        (folder / name).write_text(text, encoding="utf-8")
    encoder = TextEncoder.from_pretrained(
        model_files.embedded_encoder_path(), name=model_files.EMBEDDED_ENCODER
    )
    base = KnowledgeBase.build([folder], folder.parent / "new-kb", encoder=encoder)
    return RagPipeline.from_pretrained("embedded", knowledge_base=base)


def test_right_passage_first_and_mostly_right_answer(pipeline: RagPipeline):
    answers = pipeline(list(QUESTIONS), n_docs=3)
    for answer, (document, _) in zip(answers, QUESTIONS.values(), strict=True):
        assert answer.passages[0].id == f"{document}#0", answer.question
    right = [f1(a.answer, golds) >= 0.5 for a, (_, golds) in zip(answers, QUESTIONS.values(), strict=True)]
    assert sum(right) >= 9, [(a.question, a.answer) for a in answers]


def test_it_searches_by_vectors_and_words(pipeline: RagPipeline, tmp_path: Path):
    settings = pipeline.retriever.index.settings
    assert (settings.kind, settings.dense_weight) == ("hybrid", 0.5)
    examples = [Example("1", "Who owns the Quillon orchard?", ("Marta Quillon",), ("orchard.md",))]
    run = evaluate(
        examples,
        tmp_path / "run",
        knowledge_base=pipeline.knowledge_base,
        settings=RunSettings(mode="retrieval"),
    )
    assert json.loads(run.description.read_text())["model"]["search"]["kind"] == "hybrid"


def test_posteriors_sum_to_one_and_fall(pipeline: RagPipeline):
    answer = pipeline("Who owns the Quillon orchard?", n_docs=4)
    posteriors = [passage.posterior for passage in answer.passages]
    assert sum(posteriors) == pytest.approx(1.0, abs=1e-5)
    assert posteriors == sorted(posteriors, reverse=True)
    assert answer.score < 0


def test_extractive_answers_stand_in_a_passage(pipeline: RagPipeline):
    answers = pipeline(list(QUESTIONS)[:4], n_docs=2, extractive=True)
    assert len(answers) == 4
    for answer in answers:
        assert answer.answer
        assert any(answer.answer in f"{passage.title} {passage.text}" for passage in answer.passages)


def test_batched_answers_equal_single_ones(pipeline: RagPipeline):
    questions = list(QUESTIONS)[:3]
    together = pipeline(questions, n_docs=2)
    alone = [pipeline(question, n_docs=2) for question in questions]
    assert [a.answer for a in together] == [a.answer for a in alone]


def save_adapter(folder: Path, base: Path, seed: int) -> dict[str, torch.Tensor]:
    """Save an adapter, and return the weights of the merged model."""
    config = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "v_proj"])
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    torch.manual_seed(seed)
    for name, weight in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight)
    adapted.save_pretrained(folder)
    return adapted.merge_and_unload().state_dict()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_merged_generator_is_made_again_when_its_sources_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
):
    monkeypatch.setenv("RAGWEAVE_CACHE", str(tmp_path / "cache"))
    for base, adapter, seed in (("one", "a", 0), ("one", "b", 1), ("two", "b", 1)):
        model = AutoModelForCausalLM.from_config(generator_config("llama"))
        randomise(model, seed=int(base == "two"))
        model.save_pretrained(tmp_path / base)
        expected = save_adapter(tmp_path / adapter, tmp_path / base, seed)
        monkeypatch.setattr(embedded, "generator_path", lambda base=base: tmp_path / base)
        monkeypatch.setattr(embedded, "ADAPTER", tmp_path / adapter)
        for _ in range(2):  # the second one comes from the cache
            loaded = embedded.load_generator(dtype=dtype).state_dict()
            assert loaded.keys() == expected.keys()
            assert all(torch.equal(loaded[name], weight.to(dtype)) for name, weight in expected.items())
            monkeypatch.setattr(peft.PeftModel, "from_pretrained", None)
        monkeypatch.undo()
        monkeypatch.setenv("RAGWEAVE_CACHE", str(tmp_path / "cache"))
        assert len(list((tmp_path / "cache").iterdir())) == 1


@pytest.mark.slow
def test_the_first_question_shows_nothing_of_libraries(tmp_path: Path):
    (tmp_path / "quay.md").write_text("# The quay\n\nThe quay is 320 metres long.", encoding="utf-8")
    environment = {**os.environ, "RAGWEAVE_CACHE": str(tmp_path / "cache"), "COLUMNS": "200"}
    for command in (["index", "quay.md", "--output", "kb"], ["ask", "--kb", "kb", "How long is the quay?"]):
        shown = in_terminal([sys.executable, "-m", "ragweave", *command], tmp_path, environment)
        assert "warning" not in shown.lower(), shown
        # Only the spinner and the bars of ragweave itself.
        stages = r"Looking for changes|Loading the \w+ 'embedded'|Reading|Embedding|Indexing|Starting|Writing"
        lines = [line for line in re.split(r"[\r\n]+", shown) if line.strip()]
        strange = [line for line in lines if not re.search(stages, line)]
        assert strange == [], shown
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_adapter_is_packaged():
    assert {path.name for path in embedded.ADAPTER.iterdir()} >= {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    assert Path(model_files.embedded_encoder_path()).is_dir()
