"""qa gold files, pairs of files, and tables are read, and errors name the line."""

from __future__ import annotations

import pytest

from ragweave.errors import DataError
from ragweave.evaluation.data import read_examples
from tests.support.questions import parts, written


@pytest.mark.parametrize("name", ["nq-test.qa.csv", "gold.tsv", "gold.txt", "gold"])
def test_they_are_recognised_by_their_first_line(tmp_path, name):
    path = written(tmp_path / name, "where is it?\t['Lima', \"it's Peru\"]", "", 'who?\t["Ada"]')
    expected = [("1", "where is it?", ("Lima", "it's Peru"), ()), ("2", "who?", ("Ada",), ())]
    assert parts(read_examples(path)) == parts(read_examples(path, format="qa")) == expected


@pytest.mark.parametrize(
    ("line", "question", "answers"),
    [
        (
            '"who said ""hi""?"\t"[\'Ann\', ""d\'Arc""]"',
            'who said "hi"?',
            ("Ann", "d'Arc"),
        ),  # as pandas writes
        ('"Hi" was said by whom?\t["Ann"]', '"Hi" was said by whom?', ("Ann",)),  # as it stands
        ('who said "hi"?\t["Ann"]', 'who said "hi"?', ("Ann",)),
        ("3, or 4?\t('3', 4)", "3, or 4?", ("3", "4")),
        ("a?\t ['b'] ", "a?", ("b",)),
    ],
)
def test_quotation_marks(tmp_path, line, question, answers):
    (example,) = read_examples(written(tmp_path / "gold.tsv", line), format="qa")
    assert (example.question, example.answers) == (question, answers)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a?", "Line 2 of .* has no tab: write the question, a tab and a list"),
        ("a?\tLima", r'Line 2 of .* not a list: write \["Lima", "Lima, Peru"\], and not \'Lima\''),
        ("a?\t'Lima'", "Line 2 of .* not a list"),
        ("a?\t['Lima'", "Line 2 of .* not a list"),
        ("a?\t['Lima']\t['Peru']", "Line 2 of .* not a list"),
        ("a?\t{'Lima'}", "Line 2 of .* not a list"),
        ("a?\t" + "[" * 10_000, "Line 2 of .* not a list"),
        ("a?\t[" + "1+" * 10_000 + "1j]", "Line 2 of .* not a list"),
        ("a?\t" + "-" * 100_000 + "1", "Line 2 of .* not a list"),
        ("a?\t['']", "Line 2 of .* has the answer ''"),
        ("\t['a']", "Line 2 of .* has no question"),
    ],
)
def test_lines_that_cannot_be_read(tmp_path, line, message):
    with pytest.raises(DataError, match=message):
        read_examples(written(tmp_path / "gold.tsv", "ok?\t['a']", line))


def test_nothing_in_a_list_is_executed(tmp_path):
    path = written(tmp_path / "gold.tsv", f"a?\t[open({str(tmp_path / 'made')!r}, 'w')]")
    with pytest.raises(DataError, match="not a list"):
        read_examples(path, format="qa")
    assert not (tmp_path / "made").exists()


@pytest.fixture
def source(tmp_path):
    return written(tmp_path / "test.source", "Where?", "Who?")


def test_a_target_beside_its_source(source):
    written(source.with_suffix(".target"), " Lima ", "Ada")
    assert parts(read_examples(source)) == [("1", "Where?", ("Lima",), ()), ("2", "Who?", ("Ada",), ())]


def test_answers_in_a_file_of_any_name(tmp_path, source):
    gold = written(tmp_path / "gold.txt", "Peru", "Bea")
    for format_ in ("auto", "ans"):
        assert [example.answers for example in read_examples(source, format=format_, gold=gold)] == [
            ("Peru",),
            ("Bea",),
        ]
    questions = written(tmp_path / "questions.txt", "Why?", "When?")
    assert [example.question for example in read_examples(questions, gold=gold)] == ["Why?", "When?"]


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (["Lima"], r"gold ends before line 2 of .*test.source: give one answer for each"),
        (["Lima", "Ada", "Bea", "Cy"], r"test.source ends before line 3 of .*gold"),
        (["Lima", ""], "Line 2 of .*test.source has the answer ''"),
    ],
)
def test_files_that_do_not_fit(tmp_path, source, answers, message):
    gold = written(tmp_path / "gold", *answers)
    with pytest.raises(DataError, match=message):
        read_examples(source, gold=gold)


def test_blank_questions_count(tmp_path):
    questions, gold = written(tmp_path / "q.txt", "a?", "", "b?"), written(tmp_path / "g.txt", "1", "2", "3")
    with pytest.raises(DataError, match=r"Line 2 of .*q.txt has no question"):
        read_examples(questions, gold=gold)


def test_files_that_are_missing(tmp_path, source):
    with pytest.raises(DataError, match=r"test.target cannot be read"):
        read_examples(source)
    questions = written(tmp_path / "q.txt", "a?")
    with pytest.raises(DataError, match="name the file of their answers with --gold-file"):
        read_examples(questions, format="ans")


def test_answers_to_a_file_that_holds_its_own_are_refused(tmp_path, source):
    path = written(tmp_path / "dev.jsonl", {"question": "a?", "answers": ["a"]})
    with pytest.raises(
        DataError, match="has the format jsonl, which includes answers: leave --gold-file out"
    ):
        read_examples(path, gold=source)


def test_lists_are_spelled_out_in_fields(tmp_path):
    path = written(
        tmp_path / "dev.csv",
        "id,question, answers,passage",
        'x,"Where, now?","[""Lima"", ""Peru""]",p#0',
        "",
        ',Who?,[\'Ada\'],"[""q"", ""r""]"',
        "y,When?,\"('1', 2)\",",
    )
    examples = read_examples(path)
    assert parts(examples) == [
        ("x", "Where, now?", ("Lima", "Peru"), ("p#0",)),
        ("2", "Who?", ("Ada",), ("q", "r")),
        ("y", "When?", ("1", "2"), ()),
    ]
    assert [example.where for example in examples] == [f"line {number} of {path}" for number in (2, 4, 5)]


def test_one_answer_is_taken_as_it_is(tmp_path):
    path = written(tmp_path / "dev.tsv", "question\tanswer", "Where?\t[Lima], Peru")
    assert parts(read_examples(path)) == [("1", "Where?", ("[Lima], Peru",), ())]


def test_columns_of_other_names(tmp_path):
    path = written(
        tmp_path / "dev.csv", "q,gold,more,doc", 'Where?,"[""Lima""]",Peru,"[""p""]"', "Who?,['Ada'],,"
    )
    columns = {"question": "q", "answers": "gold", "passages": "doc"}
    expected = [("1", "Where?", ("Lima",), ("p",)), ("2", "Who?", ("Ada",), ())]
    assert parts(read_examples(path, columns=columns)) == expected
    one = read_examples(path, columns={"question": "q", "answer": "more", "passage": "doc"}, limit=1)
    assert parts(one) == [("1", "Where?", ("Peru",), ("p",))]


def test_a_row_is_where_it_begins(tmp_path):
    path = written(tmp_path / "dev.csv", "question,answer", '"Where\nis it?",Lima', ",Ada")
    with pytest.raises(DataError, match=r"Line 4 of .* has no question"):
        read_examples(path)


def test_a_field_above_pythons_limit(tmp_path):
    answer = "word " * 50_000
    path = written(tmp_path / "dev.csv", "question,answer", f"Where?,{answer}")
    assert read_examples(path)[0].answers == (answer.strip(),)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["question,answers", "a?,Lima"], "Line 2 of .* has answers that are not a list"),
        (["question,answers", "a?,"], "Line 2 of .* has no answers"),
        (["question,answer", "a?,"], "Line 2 of .* has no answers"),
        (["question,answer", " ,b"], "Line 2 of .* has no question"),
        (["query,answer", "a?,b"], "Line 2 of .* lacks 'question' .it has 'query', 'answer'."),
        (["question,gold", "a?,b"], "Line 2 of .* lacks 'answers' .it has 'question', 'gold'."),
        (["question,answer,answer", "a?,b,c"], "has two columns 'answer': rename"),
        (["question,answer", "a?,b", "a?,b,c"], "row at line 3 of .* has 3 fields, the first line has 2"),
        (["question,answer", "a?,b", '"a"?,c'], "Line 3 of .* cannot be read as a table"),
        (["question,answers,passages", "a?,['b'],[p"], "Line 2 of .* has passages that are not a list"),
        (["question,answer"], "There are no questions in"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, lines, message):
    with pytest.raises(DataError, match=message):
        read_examples(written(tmp_path / "dev.csv", *lines))
