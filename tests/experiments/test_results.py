"""The page of results says what the runs say."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest
from experiments.embedded.comparisons import comparisons
from experiments.results.configurations import CONFIGURATIONS, Configuration
from experiments.results.figure import draw
from experiments.results.page import page
from experiments.results.provenance import ask_again, provenance_figures, read_answers

from ragweave import KnowledgeBase, RagPipeline
from ragweave.evaluation.evaluate import ModelSettings, evaluate
from ragweave.evaluation.metric_values import summarize
from ragweave.evaluation.run_folder import (
    Prediction,
    ReadPassage,
    RunFolder,
    RunSettings,
    read_predictions,
    write_json,
    write_predictions,
)
from ragweave.types import Example
from tests.support.pipelines import build_knowledge_base, save_rag_model


def test_every_row_has_the_figures_of_its_run_and_stars_for_differences(tmp_path):
    for configuration, right in zip(CONFIGURATIONS[:3], (40, 39, 10), strict=True):
        folder = RunFolder(tmp_path / "factbook" / configuration.name)
        folder.root.mkdir(parents=True)
        predictions = [
            Prediction(str(n), f"{n}?", ("yes",), (), "yes" if n < right else "no", -0.1, (), ())
            for n in range(50)
        ]
        write_predictions(folder.predictions, predictions)
        write_json(folder.description, {"settings": asdict(configuration.settings)})
        write_json(folder.metrics, {**summarize(predictions, configuration.settings), "seconds": 25.0})
    lines = page({"factbook": RunFolder(tmp_path / "factbook")}).splitlines()
    assert "50 generated questions" in next(line for line in lines if line.startswith("50"))
    rows = {line.split(" | ")[0]: line for line in lines if line.startswith("| ")}
    base, second, third = (rows[f"| {configuration.label}"] for configuration in CONFIGURATIONS[:3])
    assert "| 0.800 [" in base
    assert "| 0.780 [" in second
    assert r"| 0.200\*\* [" in third
    assert not any(f"| {configuration.label}" in rows for configuration in CONFIGURATIONS[3:])
    pictures = draw({"factbook": RunFolder(tmp_path / "factbook")}, {"factbook": "Countries"}, tmp_path)
    for picture in pictures:
        drawn = picture.read_text()  # matplotlib names a text in a comment before its outlines
        for configuration in CONFIGURATIONS:
            assert (f"<!-- {configuration.label} -->" in drawn) == (configuration in CONFIGURATIONS[:3])
    assert (
        draw({"factbook": RunFolder(tmp_path / "xquad")}, {"factbook": "Countries"}, tmp_path / "none") == []
    )


def test_configurations_differ_from_the_first_in_what_they_say():
    base, *others = CONFIGURATIONS
    assert len({configuration.name for configuration in CONFIGURATIONS}) == len(CONFIGURATIONS)
    for configuration in others:
        assert (configuration.model, configuration.settings) != (base.model, base.settings)
        assert replace(configuration.settings, n_docs=5, mode="e2e").depth == base.settings.depth


def country(name: str, area: str, population: str) -> dict[str, Any]:
    def field(**parts: str) -> dict[str, Any]:
        return {key.replace("_", " "): {"text": text} for key, text in parts.items()}

    return {
        "Government": {"Country name": field(conventional_short_form=name)},
        "Geography": {"Area": field(total=area)},
        "People and Society": {"Population": field(total=population)},
    }


def test_comparisons_name_the_country_with_the_larger_or_the_smaller_value():
    countries = {
        "ke": country("Kenya", "580,367 sq km", "58.2 million (2024 est.)"),
        "pe": country("Peru", "1,285,216 sq km", "32,600,249 (2024 est.)"),
        "mg": country("Mongolia", "1,564,116 sq km", "3,281,676 (2024 est.)"),
        "af": country(
            "Afghanistan", "652,230 sq km", "40,121,552 (2024 est.)"
        ),  # the adapter was trained on it
    }
    found = comparisons(countries)
    assert len(found) == 5  # Peru and Mongolia have nearly the same area
    order = {"people": ["Mongolia", "Peru", "Kenya"], "geography": ["Kenya", "Peru", "Mongolia"]}
    for one in found:
        ranked = [name for name in order[one["id"].split("-")[0]] if name in one["question"]]
        wants_less = any(word in one["question"] for word in ("fewer", "smaller"))
        assert one["answers"] == [ranked[0] if wants_less else ranked[-1]]
        assert len(set(one["passages"])) == 2
    assert comparisons(countries, 2) == found[:2]


@pytest.mark.parametrize("formulation", ["token", "concat"])
def test_questions_are_asked_again_with_and_without_the_first_passage(
    tmp_path, tiny_encoder_path, formulation
):
    model = save_rag_model(tmp_path / "model", tiny_encoder_path)
    base = KnowledgeBase.open(build_knowledge_base(tmp_path, tiny_encoder_path))
    examples = [
        Example(str(n), f"What is the capital of {name}?", (capital,), (f"{name.lower()}.txt",))
        for n, (name, capital) in enumerate({"Peru": "Lima", "Kenya": "Nairobi", "Chile": "Santiago"}.items())
    ]
    configuration = Configuration(
        "tiny",
        "tiny",
        "tiny",
        ModelSettings(str(model), formulation, dtype="float32"),
        RunSettings(n_docs=2, extractive=False),
    )
    run = evaluate(
        examples,
        tmp_path / "run",
        knowledge_base=base,
        model=configuration.model,
        settings=configuration.settings,
    )
    reported = []
    ask_again(configuration, base, run, lambda *counts: reported.append(counts))
    assert reported == [(3, 0), (3, 3)]
    again = read_answers(run)
    pipeline = RagPipeline.from_pretrained(
        model, knowledge_base=base, formulation=formulation, dtype="float32"
    )
    retriever = pipeline.text_retriever
    for prediction in read_predictions(run.predictions):
        (rows,) = retriever.retrieve([prediction.question], 2).rows
        first = max(prediction.passages, key=lambda passage: passage.posterior)
        by_id = {base.passage(int(row)).id: int(row) for row in rows}
        only = by_id.pop(first.id)
        (other,) = by_id.values()
        for row, answer in zip((only, other), again[prediction.id], strict=True):
            alone = retriever.score([prediction.question], retriever.index.hits_for_rows([[row]], 1))
            assert pipeline([prediction.question], retrieved=alone, extractive=False)[0].answer == answer
    file = run.root / "provenance.jsonl"
    whole = file.read_text()
    file.write_text(whole[:-5])
    ask_again(configuration, base, run, lambda *counts: None)
    assert file.read_text() == whole


def test_a_first_passage_is_gold_sufficient_or_necessary(tmp_path):
    def read(name: str, posterior: float) -> ReadPassage:
        return ReadPassage(f"{name}#1", name, name, "", "", 0.0, posterior)

    folder = RunFolder(tmp_path)
    passages = (read("a", 0.2), read("b", 0.8))
    write_predictions(
        folder.predictions,
        [
            Prediction("1", "1?", ("x",), ("b",), "x", 0.0, passages, ()),
            Prediction("2", "2?", ("x",), ("a",), "the X", 0.0, passages, ()),
            Prediction("3", "3?", ("x",), ("c",), "x", 0.0, passages, ()),  # no gold passage was read
        ],
    )
    assert provenance_figures(folder) == {}
    lines = ['["1", "x", "y"]', '["2", "x", "x."]', '["3", "y", "y"]']
    (tmp_path / "provenance.jsonl").write_text("\n".join(lines) + "\n")
    assert provenance_figures(folder) == {"first_is_gold": 0.5, "sufficient": 1.0, "necessary": 0.5}
