"""Recipes, on lines in the published layouts of their data."""

from __future__ import annotations

import pytest
from transformers import AutoTokenizer

from ragweave.errors import DataError
from ragweave.evaluation.data import RECIPES, GivenPassage, Recipe, read_examples
from ragweave.evaluation.metric_values import ANSWER_METRICS, CORPUS_METRICS
from ragweave.pipeline.embedded import generator_path
from tests.support.questions import parts, written

MARCO = {
    "answers": ["In Lima."],
    "passages": {
        "is_selected": [0, 1],
        "passage_text": ["Ulm lies on the Danube.", "It is in Lima."],
        "url": ["https://a", "https://b"],
    },
    "query": "where is it",
    "query_id": 19699,
    "query_type": "LOCATION",
    "wellFormedAnswers": [],
}
CLUE = {
    "category": "CITIES",
    "question": '\'This capital, seen <a href="http://x/1.jpg" target="_blank">here</a>, lies on the Pacific\'',
    "answer": "Lima",
    "round": "Jeopardy!",
}
FEVER = {
    "id": 75397,
    "verifiable": "VERIFIABLE",
    "label": "REFUTES",
    "claim": "Lima is in Chile.",
    "evidence": [],
}
TRIVIA = {
    "question": "Which author?",
    "question_id": "tc_1",
    "answer": {
        "aliases": ["(Harry) Lewis", "Sinclair Lewis"],
        "value": "Sinclair Lewis",
        "type": "WikipediaEntity",
    },
}

PUBLISHED = [
    ("nq-open", {"question": "where", "answer": ["Lima", "Peru"]}, ("1", "where", ("Lima", "Peru"), ())),
    ("triviaqa", TRIVIA, ("tc_1", "Which author?", ("Sinclair Lewis", "(Harry) Lewis"), ())),
    ("web-questions", {"url": "u", "question": "where", "answers": ["Lima"]}, ("1", "where", ("Lima",), ())),
    ("curated-trec", {"question": "when", "answer": [r"19\d\d"]}, ("1", "when", (r"19\d\d",), ())),
    ("ms-marco", MARCO, ("19699", "where is it", ("In Lima.",), ())),
    ("jeopardy", CLUE, ("1", "Lima", ("This capital, seen here, lies on the Pacific",), ())),
    ("fever-3", FEVER, ("75397", "Lima is in Chile.", ("R",), ())),
    ("fever-3", {**FEVER, "label": "NOT ENOUGH INFO"}, ("75397", "Lima is in Chile.", ("N",), ())),
    ("fever-2", {**FEVER, "label": "SUPPORTS"}, ("75397", "Lima is in Chile.", ("S",), ())),
    (
        "fever-2",
        {
            "id": "33",
            "input": "A claim.",
            "output": [{"answer": "REFUTES", "provenance": [{"wikipedia_id": "7"}]}],
        },
        ("33", "A claim.", ("R",), ("7",)),
    ),
]


@pytest.mark.parametrize(("recipe", "line", "expected"), PUBLISHED)
def test_data_as_it_is_published(tmp_path, recipe, line, expected):
    assert parts(read_examples(written(tmp_path / "data.jsonl", line), recipe=recipe)) == [expected]


def test_every_recipe_is_tried_and_names_metrics_that_there_are():
    assert {name for name, _, _ in PUBLISHED} == set(RECIPES)
    for name, recipe in RECIPES.items():
        assert recipe.name == name
        assert set(recipe.metrics) <= {*ANSWER_METRICS, *CORPUS_METRICS}


@pytest.mark.parametrize("recipe", [name for name in RECIPES if RECIPES[name].task != "classification"])
def test_our_own_form_and_qa_files_too(tmp_path, recipe):
    expected = [("1", "where?", ("'Lima'",), ())]
    line = {"question": "where?", "answers": ["'Lima'"]}
    assert parts(read_examples(written(tmp_path / "data.jsonl", line), recipe=recipe)) == expected
    path = written(tmp_path / "data.qa.csv", "where?\t[\"'Lima'\"]")
    assert parts(read_examples(path, recipe=recipe)) == expected


def test_the_class_stays_with_the_example(tmp_path):
    path = written(tmp_path / "data.jsonl", FEVER)
    assert read_examples(path, recipe="fever-3")[0].label == "REFUTES"
    written(path, {"question": "A claim.", "answers": ["N"]})
    (example,) = read_examples(path, recipe="fever-3")
    assert (example.answers, example.label) == (("N",), "NOT ENOUGH INFO")
    assert read_examples(written(path, CLUE), recipe="jeopardy")[0].label is None


def test_classes_are_one_token():
    tokenizer = AutoTokenizer.from_pretrained(generator_path())
    labels = {label for recipe in RECIPES.values() for label in recipe.labels.values()}
    for text in [*labels, *(f" {label}" for label in labels)]:
        assert len(tokenizer(text, add_special_tokens=False)["input_ids"]) == 1


def test_a_class_that_nobody_knows(tmp_path):
    path = written(tmp_path / "data.jsonl", FEVER, {**FEVER, "id": 2, "label": "DISPUTED"})
    with pytest.raises(
        DataError, match=r"Line 2 of .* class 'DISPUTED': fever-3 has the classes SUPPORTS, REFUTES, NOT"
    ):
        read_examples(path, recipe="fever-3")


def test_claims_that_come_again_for_every_piece_of_evidence(tmp_path):
    rows = [{**FEVER, "evidence_id": number} for number in range(3)]
    path = written(tmp_path / "data.jsonl", *rows, {**FEVER, "id": 2})
    assert [example.id for example in read_examples(path, recipe="fever-3")] == ["75397", "2"]
    written(path, FEVER, {**FEVER, "label": "SUPPORTS"})
    with pytest.raises(DataError, match=r"Line 2 of .* has the id '75397' of line 1"):
        read_examples(path, recipe="fever-3")


def test_questions_without_an_answer_are_left_out(tmp_path):
    rows = [
        {**MARCO, "query_id": 1, "answers": ["No Answer Present."]},
        {**MARCO, "query_id": 2, "answers": []},
        {**MARCO, "query_id": 3, "answers": [""]},
        {**MARCO, "query_id": 4},
    ]
    path = written(tmp_path / "data.jsonl", *rows)
    assert [example.id for example in read_examples(path, recipe="ms-marco")] == ["4"]
    assert [example.id for example in read_examples(path, recipe="ms-marco", limit=1)] == ["4"]
    undecided = {**FEVER, "id": 1, "label": "NOT ENOUGH INFO"}
    assert [example.id for example in read_examples(written(path, undecided, FEVER), recipe="fever-2")] == [
        "75397"
    ]
    secret = {**TRIVIA, "answer": {"value": "<unk>", "aliases": []}}
    with pytest.raises(DataError, match="no questions that have an answer in"):
        read_examples(written(path, secret), recipe="triviaqa")


@pytest.mark.parametrize(
    "passages",
    [
        MARCO["passages"],
        [
            {"is_selected": 0, "passage_text": "Ulm lies on the Danube."},
            {"is_selected": 1, "passage_text": "It is in Lima."},
        ],
    ],
)
def test_the_passages_of_ms_marco_are_contexts(tmp_path, passages):
    path = written(tmp_path / "data.jsonl", {**MARCO, "passages": passages})
    (example,) = read_examples(path, recipe="ms-marco", contexts=True)
    assert example.contexts == (
        GivenPassage("Ulm lies on the Danube.", gold=False),
        GivenPassage("It is in Lima.", gold=True),
    )


@pytest.mark.parametrize(
    "passages",
    [{"passage_text": ["a"], "is_selected": []}, {"passage_text": ["a"]}, [{"passage_text": "a"}, 3]],
)
def test_passages_of_ms_marco_that_do_not_fit(tmp_path, passages):
    path = written(tmp_path / "data.jsonl", {**MARCO, "passages": passages})
    with pytest.raises(DataError, match=r"Line 1 of .* without MS-MARCO's form"):
        read_examples(path, recipe="ms-marco")


def test_patterns_are_checked_when_they_are_read(tmp_path):
    path = written(tmp_path / "gold.tsv", "ok?\t['19[0-9]+']", "when?\t['19[']")
    with pytest.raises(DataError, match=r"Line 2 of .*'19\[' is not a valid regular expression"):
        read_examples(path, recipe="curated-trec")


def test_clues_that_are_nothing_but_a_link(tmp_path):
    path = written(tmp_path / "data.json", [CLUE, {**CLUE, "question": '<a href="x"></a>'}])
    with pytest.raises(DataError, match=r"Question 2, line 1 of .* has no text in '<a href"):
        read_examples(path, recipe="jeopardy")


def test_columns_of_ones_own_go_before_those_of_a_recipe(tmp_path):
    path = written(tmp_path / "data.jsonl", {**TRIVIA, "passages": ["p"]})
    examples = read_examples(path, recipe="triviaqa", columns={"passages": "-", "answers": "answer.aliases"})
    assert parts(examples) == [("tc_1", "Which author?", ("(Harry) Lewis", "Sinclair Lewis"), ())]
    examples = read_examples(path, recipe="triviaqa", columns={"answer": "answer.value"})
    assert parts(examples) == [("tc_1", "Which author?", ("Sinclair Lewis",), ("p",))]


def test_a_recipe_of_ones_own(tmp_path):
    mine = Recipe(
        name="mine",
        about="",
        task="answer",
        metrics=("f1",),
        columns={"id": "n", "question": "q", "answer": "a"},
    )
    path = written(tmp_path / "data.jsonl", {"q": "Where?", "a": "Lima"})
    assert parts(read_examples(path, recipe=mine)) == [("1", "Where?", ("Lima",), ())]


def test_data_of_another_task_and_a_recipe_that_is_none(tmp_path):
    path = written(tmp_path / "data.jsonl", {"claim": "a", "label": "b"})
    with pytest.raises(DataError, match=r"Line 1 of .* lacks 'query' .it has 'claim', 'label'."):
        read_examples(path, recipe="ms-marco")
    with pytest.raises(DataError, match=r"Unknown recipe 'squid'\. Choose one of: nq-open"):
        read_examples(path, recipe="squid")
