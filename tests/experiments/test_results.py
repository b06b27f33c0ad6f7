"""The page of results says what the runs say."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Any

import pytest
from experiments.embedded.comparisons import comparisons
from experiments.results.configurations import CONFIGURATIONS, Configuration
from experiments.results.figure import draw
from experiments.results.page import page
from experiments.results.provenance import ask_again, provenance_figures, read_answers
from experiments.results.run import run_one, with_gold_passages
from experiments.results.vote import vote

from ragweave import KnowledgeBase, RagPipeline
from ragweave.evaluation.evaluate import ModelSettings
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
from ragweave.provenance.answers import Answer, RetrievedPassage
from ragweave.types import Example, ScoredPassage, SearchSettings
from tests.support.encoders import load_tiny_encoder
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


def finished_run(folder, name: str, right: str, text: str = "yes") -> None:
    """A run of four questions with the answer "yes", the numbers in ``right`` answered with it."""
    (configuration,) = (one for one in CONFIGURATIONS if one.name == name)
    run = RunFolder(folder / name)
    run.root.mkdir(parents=True)
    passages = (ReadPassage("a#1", "a", "", text, "", 0.0, 1.0),)
    predictions = [
        Prediction(n, f"{n}?", ("yes",), (), "yes" if n in right else "no", -0.1, passages, ())
        for n in "1234"
    ]
    write_predictions(run.predictions, predictions)
    write_json(run.description, {"settings": asdict(configuration.settings)})
    write_json(run.metrics, summarize(predictions, configuration.settings))


def test_formulations_are_compared_at_each_k_that_all_were_run_at(tmp_path):
    for name, right in {"base": "12", "thorough": "123", "concat": "1234", "k3": "1", "concat3": "1"}.items():
        finished_run(tmp_path, name, right)
    lines = page({"xquad": RunFolder(tmp_path)}).splitlines()
    (row,) = (line for line in lines if line.startswith("| 5 |"))
    columns = [cell.strip() for cell in row.strip("|").split(" | ")]
    assert [cell.split(" ")[0] for cell in columns] == ["5", "0.500", "0.750", "1.000", "+0.500"]
    assert "[+0.00, +1.00], p = 0.50" in columns[-1]  # two signs: half of them agree
    assert not any(line.startswith("| 3 |") for line in lines)


def test_rows_without_a_first_row_wait_for_it(tmp_path):
    finished_run(tmp_path, "k3", "12")
    assert "XQuAD" not in page({"xquad": RunFolder(tmp_path)})


def test_answers_from_the_gold_passage_are_counted_apart_for_known_and_unknown_ones(tmp_path):
    finished_run(tmp_path, "base", "1")
    finished_run(tmp_path, "closed", "14")
    finished_run(tmp_path, "gold", "12", "The answer is yes.")
    finished_run(tmp_path, "closed-no-adapter", "")
    finished_run(tmp_path, "gold-no-adapter", "1234", "It says nothing.")
    rows = [line for line in page({"xquad": RunFolder(tmp_path)}).splitlines() if line.startswith("| XQuAD")]
    by_match, by_words, *without = (row.split(" | ")[1:] for row in rows)
    assert by_match == by_words == ["0.500 [0.00, 1.00] of 2", "0.500 [0.00, 1.00] of 2 |"]
    assert without == [["0 questions", "0 questions |"]] * 2


def test_the_gold_passage_is_the_nearest_of_the_gold_document_with_the_answer(tmp_path, tiny_encoder_path):
    days = "".join(f"On day {n} fog rolls into Lima. " for n in range(40))
    text = "The Andes are mountains. " * 40 + "Lima is the capital. " + days
    base = KnowledgeBase.open(
        build_knowledge_base(tmp_path, tiny_encoder_path, {"peru.txt": text}),
        encoder=load_tiny_encoder(tiny_encoder_path),
    )
    questions = ["What is the capital?", "What rolls into Lima?", "Where are the mountains?"]
    examples = [Example(question, question, ("Lima",), ("peru.txt",)) for question in questions]
    unknown = Example("x", "?", ("Quito",), ("peru.txt",))
    *named, same = with_gold_passages([*examples, unknown], base)
    for one, ranked in zip(named, base.search(questions, 10, settings=SearchSettings("dense")), strict=True):
        with_answer = [passage.id for passage in ranked if "Lima" in passage.text]
        assert 2 <= len(with_answer) < len(ranked)
        assert one.gold_passages == (with_answer[0],)
    assert same == unknown  # no passage has the answer


def test_passages_vote_with_their_prior():
    passages = [ScoredPassage(f"{n}#1", "", "", "", 0.0, prior) for n, prior in enumerate((0.4, 0.35, 0.25))]
    answers = [
        Answer(
            "?",
            text,
            math.log(likelihood),
            (RetrievedPassage.of(passage, 1.0, 0.5),),
            null_score=math.log(0.5),
        )
        for text, likelihood, passage in zip(
            ("Lima", "the Nairobi", "Nairobi."), (0.9, 0.2, 0.6), passages, strict=True
        )
    ]
    winner = vote([*answers, answers[0]], [*passages, None])  # there is no fourth passage
    assert winner.answer == "Nairobi."
    assert math.exp(winner.score) == pytest.approx(0.35 * 0.2 + 0.25 * 0.6)
    assert math.exp(winner.null_score) == pytest.approx(0.5)
    assert [(passage.id, round(passage.posterior, 3)) for passage in winner.passages] == [
        ("2#1", 0.682),
        ("1#1", 0.318),
        ("0#1", 0.0),
    ]


def test_configurations_differ_from_the_first_in_what_they_say():
    base, *others = CONFIGURATIONS
    assert len({configuration.name for configuration in CONFIGURATIONS}) == len(CONFIGURATIONS)
    for configuration in others:
        assert replace(configuration, name="", label="", group="", data=()) != replace(
            base, name="", label="", group="", data=(), asked_again=configuration.asked_again
        )
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


@pytest.mark.parametrize("formulation", ["token", "concat", "vote"])
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
        ModelSettings(str(model), None if formulation == "vote" else formulation, dtype="float32"),
        RunSettings(n_docs=2, extractive=False),
        vote=formulation == "vote",
    )
    run = run_one(configuration, examples, tmp_path, base)
    reported = []
    ask_again(configuration, base, run, lambda *counts: reported.append(counts))
    assert reported == [(3, 0), (3, 3)]
    again = read_answers(run)
    pipeline = RagPipeline.from_pretrained(
        model, knowledge_base=base, formulation=configuration.model.formulation, dtype="float32"
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
        if configuration.vote:  # the better of two passages has more votes than the other
            assert prediction.answer == again[prediction.id][0]
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
