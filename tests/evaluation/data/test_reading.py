"""Questions and what is right, from every format."""

from __future__ import annotations

import json

import datasets
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragweave import KnowledgeBase
from ragweave.errors import DataError
from ragweave.evaluation.data import RECIPES, Example, check_gold, read_examples, write_examples


def parts(examples):
    return [(own.id, own.question, own.answers, own.gold_passages) for own in examples]


def written(path, *lines):
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def test_json_lines(tmp_path):
    path = written(
        tmp_path / "dev.jsonl",
        {"id": "q1", "question": "Where?", "answers": ["Lima", "Lima, Peru", "Lima"], "passage": "peru#0"},
        "",
        {"question": " Who? ", "answer": "Ada", "provenance": [{"id": "ada"}, "lovelace"]},
        {"question": "When?", "answers": ["1", 2]},
    )
    assert parts(read_examples(path)) == [
        ("q1", "Where?", ("Lima", "Lima, Peru"), ("peru#0",)),
        ("2", "Who?", ("Ada",), ("ada", "lovelace")),
        ("3", "When?", ("1", "2"), ()),
    ]
    assert read_examples(path)[1].where == f"line 3 of {path}"
    assert len(read_examples(path, limit=2)) == 2


def test_kilt(tmp_path):
    line = {
        "id": "k",
        "input": "Where?",
        "output": [
            {"answer": "Lima", "provenance": [{"wikipedia_id": "7", "title": "Peru"}, {"wikipedia_id": "7"}]},
            {"provenance": [{"wikipedia_id": 9}]},
            {"answer": "Peru"},
        ],
    }
    assert parts(read_examples(written(tmp_path / "kilt.jsonl", line))) == [
        ("k", "Where?", ("Lima", "Peru"), ("7", "9"))
    ]


def test_dpr(tmp_path):
    path = tmp_path / "dev.json"
    path.write_text(
        json.dumps(
            [
                {
                    "question": "Where?",
                    "answers": ["Lima"],
                    "positive_ctxs": [{"passage_id": "5"}, {"psg_id": 6}],
                },
                {"question": "Who?", "answers": ["Ada"], "positive_ctxs": []},
            ]
        )
    )
    assert parts(read_examples(path)) == [("1", "Where?", ("Lima",), ("5", "6")), ("2", "Who?", ("Ada",), ())]


@pytest.mark.parametrize("name", ["nq-test.qa.csv", "gold.tsv"])
def test_qa_gold_files_are_recognised_by_their_first_line(tmp_path, name):
    path = written(tmp_path / name, "where is it?\t['Lima', \"it's Peru\"]", 'who?\t["Ada"]')
    expected = [("1", "where is it?", ("Lima", "it's Peru"), ()), ("2", "who?", ("Ada",), ())]
    assert parts(read_examples(path)) == parts(read_examples(path, format="qa")) == expected


def test_pairs_of_files(tmp_path):
    source = written(tmp_path / "test.source", "Where?", "Who?")
    written(tmp_path / "test.target", "Lima", "Ada")
    assert parts(read_examples(source)) == [("1", "Where?", ("Lima",), ()), ("2", "Who?", ("Ada",), ())]
    other = written(tmp_path / "gold.txt", "Peru", "Bea")
    assert [own.answers for own in read_examples(source, format="ans", gold=other)] == [("Peru",), ("Bea",)]
    written(other, "Peru")
    with pytest.raises(DataError, match=r"has 2 lines, .* has 1"):
        read_examples(source, gold=other)


def test_tables(tmp_path):
    path = written(
        tmp_path / "dev.csv",
        "question,answers,passage",
        '"Where, now?","[""Lima"", ""Peru""]",p#0',
        "",
        "Who?,['Ada'],q",
    )
    assert parts(read_examples(path)) == [
        ("1", "Where, now?", ("Lima", "Peru"), ("p#0",)),
        ("2", "Who?", ("Ada",), ("q",)),
    ]
    path = written(tmp_path / "dev.tsv", "query\tgold", "Where?\tLima")
    columns = {"question": "query", "answer": "gold"}
    assert parts(read_examples(path, columns=columns)) == [("1", "Where?", ("Lima",), ())]


def test_a_saved_data_set_with_nested_columns(tmp_path):
    rows = {"q": ["Where?"], "answer": [{"aliases": ["Lima", "Peru"]}]}
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "saved")
    found = read_examples(tmp_path / "saved", columns={"question": "q", "answers": "answer.aliases"})
    assert parts(found) == [("1", "Where?", ("Lima", "Peru"), ())]
    datasets.DatasetDict({"dev": datasets.Dataset.from_dict(rows)}).save_to_disk(tmp_path / "splits")
    again = read_examples(
        f"{tmp_path / 'splits'}:dev", format="dataset", columns={"question": "q", "answers": "answer.aliases"}
    )
    assert parts(again) == parts(found)
    with pytest.raises(DataError, match="cannot be read"):
        read_examples(f"{tmp_path / 'splits'}:test", format="dataset")


RECIPE_LINES = {
    "nq-open": ({"question": "where?", "answer": ["Lima"]}, ("where?", ("Lima",))),
    "triviaqa": (
        {"question_id": "t", "question": "where?", "answer": {"aliases": ["Lima", "Peru"]}},
        ("where?", ("Lima", "Peru")),
    ),
    "web-questions": ({"question": "where?", "answers": ["Lima"]}, ("where?", ("Lima",))),
    "curated-trec": ({"question": "where?", "answers": ["Li.a"]}, ("where?", ("Li.a",))),
    "ms-marco": ({"query_id": 3, "query": "where?", "answers": ["In Lima."]}, ("where?", ("In Lima.",))),
    "jeopardy": ({"question": "The capital of Peru", "answer": "Lima"}, ("Lima", ("The capital of Peru",))),
    "fever-3": ({"id": 1, "claim": "So.", "label": "NOT ENOUGH INFO"}, ("So.", ("unknown",))),
    "fever-2": ({"id": 1, "claim": "So.", "label": "REFUTES"}, ("So.", ("refutes",))),
}


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_read_their_tasks_as_they_are_published(tmp_path, name):
    line, expected = RECIPE_LINES[name]
    (own,) = read_examples(written(tmp_path / "data.jsonl", line), recipe=name)
    assert (own.question, own.answers) == expected


def test_recipes_leave_out_what_has_no_answer(tmp_path):
    rows = [{"query": "a?", "answers": ["No Answer Present."]}, {"query": "b?", "answers": ["B."]}]
    path = written(tmp_path / "data.jsonl", *rows)
    assert [own.question for own in read_examples(path, recipe="ms-marco")] == ["b?"]
    claims = [{"claim": "a", "label": "NOT ENOUGH INFO"}, {"claim": "b", "label": "SUPPORTS"}]
    found = read_examples(written(path, *claims), recipe="fever-2")
    assert [(own.question, own.answers) for own in found] == [("b", ("supports",))]


def test_recipes_read_our_own_form_too(tmp_path):
    path = written(tmp_path / "data.jsonl", {"question": "where?", "answers": ["Lima"]})
    assert read_examples(path, recipe="nq-open")[0].answers == ("Lima",)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 of .* is not valid JSON"),
        ("[1]", "line 2 of .* is not a JSON object"),
        ({"answers": ["a"]}, "line 2 of .* lacks 'question' .it has 'answers'.: name the column"),
        ({"question": "", "answers": ["a"]}, "line 2 of .* has no question"),
        ({"question": "a?"}, "line 2 of .* lacks 'answers'"),
        ({"question": "a?", "answers": "Lima"}, "line 2 of .* has answers that are no list"),
        ({"question": "a?", "answers": {"a": 1}}, "line 2 of .* has answers that are no list"),
        ({"question": "a?", "answers": []}, "line 2 of .* has no answers"),
        ({"question": "a?", "answers": [""]}, "line 2 of .* with '' among them"),
        ({"question": "a?", "answers": [None]}, "line 2 of .* with None among them"),
        ({"question": "a?", "answers": [True]}, "line 2 of .* with True among them"),
        (
            {"question": "a?", "answers": ["a"], "passages": [{}]},
            r"line 2 of .* passages with \{\} among them",
        ),
        ({"id": "1", "question": "a?", "answers": ["a"]}, "line 2 of .* has the id '1' of line 1"),
        ({"input": "a?", "output": "x"}, "line 2 of .* 'output' that is no list"),
    ],
)
def test_lines_that_cannot_be_read(tmp_path, line, message):
    path = written(tmp_path / "dev.jsonl", {"question": "ok?", "answers": ["a"]}, line)
    with pytest.raises(DataError, match=message):
        read_examples(path)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match=r"There is no file .*: check the path, or add --format dataset"):
        read_examples(tmp_path / "nothing.jsonl")
    with pytest.raises(DataError, match="There are no questions in"):
        read_examples(written(tmp_path / "empty.jsonl"))
    with pytest.raises(DataError, match="name it with --format"):
        read_examples(written(tmp_path / "dev.txt", "a"))
    with pytest.raises(DataError, match="no format 'xml'"):
        read_examples(tmp_path / "dev.txt", format="xml")
    with pytest.raises(DataError, match="no recipe 'squid'; choose among nq-open"):
        read_examples(tmp_path / "dev.txt", recipe="squid")
    (tmp_path / "latin.jsonl").write_bytes(b'{"question": "\xe9"}')
    with pytest.raises(DataError, match="is not UTF-8"):
        read_examples(tmp_path / "latin.jsonl")
    with pytest.raises(DataError, match="is not a JSON list of questions"):
        read_examples(written(tmp_path / "dev.json", "{}"))
    with pytest.raises(DataError, match="has no tab"):
        read_examples(written(tmp_path / "gold.tsv", "a?"), format="qa")
    with pytest.raises(DataError, match="answers that are no list"):
        read_examples(written(tmp_path / "dev.csv", "question,answers", "a?,Lima"))
    with pytest.raises(DataError, match="3 fields, the first line has 2"):
        read_examples(written(tmp_path / "wide.csv", "question,answer", "a?,b,c"))
    with pytest.raises(DataError, match="name the file of their answers with --gold-file"):
        read_examples(written(tmp_path / "q.txt", "a?"), format="ans")


def test_nothing_in_a_list_is_executed(tmp_path):
    path = written(tmp_path / "gold.tsv", f"a?\t[open({str(tmp_path / 'made')!r}, 'w')]")
    with pytest.raises(DataError, match="no list"):
        read_examples(path, format="qa")
    assert not (tmp_path / "made").exists()


def test_gold_passages_that_a_knowledge_base_lacks(tmp_path, tiny_encoder):
    (tmp_path / "peru.txt").write_text("Lima is the capital.")
    base = KnowledgeBase.build([tmp_path / "peru.txt"], tmp_path / "kb", encoder=tiny_encoder)
    check_gold([Example("1", "a?", ("a",), ("peru.txt",)), Example("2", "b?", ("b",), ("peru.txt#0",))], base)
    lines = [
        {"question": "a?", "answers": ["a"], "passage": "peru.txt#0"},
        {"question": "b?", "answers": ["b"], "passage": "chile.txt"},
        {"question": "c?", "answers": ["c"], "passage": "cuba.txt"},
    ]
    examples = read_examples(written(tmp_path / "dev.jsonl", *lines))
    with pytest.raises(DataError, match=r"line 2 of .* 'chile.txt', which .* does not have \(nor 1 others\)"):
        check_gold(examples, base)


TEXT = st.text(min_size=1, max_size=20).map(str.strip).filter(bool).filter(lambda text: "\0" not in text)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(TEXT, st.lists(TEXT, min_size=1, unique=True), st.lists(TEXT, unique=True)), min_size=1
    )
)
def test_what_is_written_is_read(tmp_path, content):
    examples = [
        Example(str(number), question, tuple(answers), tuple(passages))
        for number, (question, answers, passages) in enumerate(content)
    ]
    write_examples(tmp_path / "out.jsonl", examples)
    assert parts(read_examples(tmp_path / "out.jsonl")) == parts(examples)


def test_a_failure_leaves_the_old_file(tmp_path):
    path = written(tmp_path / "out.jsonl", {"question": "a?", "answers": ["a"]})

    def broken():
        yield Example("1", "b?", ("b",))
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_examples(path, broken())
    assert [own.question for own in read_examples(path)] == ["a?"]
    assert [own.name for own in tmp_path.iterdir()] == ["out.jsonl"]
