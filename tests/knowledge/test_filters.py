"""Conditions on metadata: what is found is what brute force finds, and nothing else is evaluated."""

from __future__ import annotations

import json
import operator
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragweave import KnowledgeBase, SearchSettings
from ragweave.errors import ConfigurationError
from ragweave.knowledge import vector_index
from ragweave.knowledge.filters import parse
from ragweave.knowledge.postgres import reader

COUNT = 240
YEARS, LANGUAGES = [None, 1999, 2019, 2020.5, 2021, "2020"], [None, "de", "en", "fr", "EN", "é"]
TAGS = [None, ["a"], ["a", "b"], ["b", 2020], "a"]
DRAFT = [None, True, False, 1]


def record(n):
    values = {
        "year": YEARS[n % 6],
        "lang": LANGUAGES[n * 7 % 6],
        "tags": TAGS[n % 5],
        "draft": DRAFT[n % 4],
    }
    return {name: value for name, value in values.items() if value is not None}


@pytest.fixture(scope="module", params=["flat", "hnsw", "postgresql, flat", "postgresql, hnsw"])
def base(request, tmp_path_factory, tiny_encoder):
    """Passages of several segments with metadata of several types, some of them deleted."""
    folder = tmp_path_factory.mktemp("filters")
    for part in range(3):
        lines = ({"id": str(n), "text": f"river {n} of peru", **record(n)} for n in range(part, COUNT, 3))
        (folder / f"{part}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    kind = request.param
    output = request.getfixturevalue("postgres").uri() if "postgresql" in kind else folder / "kb"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vector_index, "_EXACT_ROWS", 10)  # or so few rows would all be compared
        patch.setattr(reader, "_EXACT_ROWS", 10)
        index = "hnsw" if "hnsw" in kind else "flat"
        base = KnowledgeBase.build([folder / "0.jsonl"], output, encoder=tiny_encoder, index=index)
        base = base.add([folder / "1.jsonl", folder / "2.jsonl"], encoder=tiny_encoder)
        yield base.delete(ids=[str(n) for n in range(0, COUNT, 11)])


def live():
    return [n for n in range(COUNT) if n % 11]


literals = st.one_of(
    st.sampled_from([1999, 2019, 2020, 2020.5, 2021, -1, 2**70]),
    st.sampled_from(["de", "en", "2020", "a", "b", "é", "it's", "%s", ""]),
    st.booleans(),
)
names = st.sampled_from(["year", "lang", "tags", "draft"])
comparisons = st.one_of(
    st.tuples(names, st.sampled_from(["==", "!="]), literals),
    st.tuples(
        names, st.sampled_from(["<", "<=", ">", ">="]), literals.filter(lambda one: type(one) is not bool)
    ),
    st.tuples(names, st.sampled_from(["in", "not in"]), st.lists(literals, max_size=3).map(tuple)),
    st.tuples(literals, st.sampled_from(["in", "not in"]), names.map(str.upper)),
    st.tuples(names, st.sampled_from(["is", "is not"]), st.none()),
)
conditions = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        st.tuples(st.just("not"), inner), st.tuples(st.sampled_from(["and", "or"]), inner, inner)
    ),
    max_leaves=5,
)


def text_of(condition):
    if condition[0] == "not":
        return f"not ({text_of(condition[1])})"
    if condition[0] in ("and", "or") and len(condition) == 3 and isinstance(condition[1], tuple):
        return f"({text_of(condition[1])}) {condition[0]} ({text_of(condition[2])})"
    left, sign, right = condition
    if (
        isinstance(right, str)
        and right.isupper()
        and right.lower() in ("year", "lang", "tags", "draft")
        and "in" in sign
    ):
        return f"{left!r} {sign} {right.lower()}"
    return f"{left} {sign} {right!r}"


def kind_of(value):
    return "number" if type(value) in (int, float) else type(value).__name__


def same(one, other):
    return one is not None and kind_of(one) == kind_of(other) and one == other


def holds(condition, fields):
    """The meaning of a condition, written down once more without a parser."""
    if condition[0] == "not":
        return not holds(condition[1], fields)
    if condition[0] in ("and", "or") and isinstance(condition[1], tuple):
        results = [holds(part, fields) for part in condition[1:]]
        return all(results) if condition[0] == "and" else any(results)
    left, sign, right = condition
    if sign in ("!=", "not in", "is not"):
        return not holds((left, {"!=": "==", "not in": "in", "is not": "is"}[sign], right), fields)
    if sign == "is":
        return fields.get(left) is None
    if sign == "in" and isinstance(right, str):
        values = fields.get(right.lower())
        return isinstance(values, list) and any(same(one, left) for one in values)
    value = fields.get(left)
    if sign == "in":
        return any(same(value, one) for one in right)
    if sign == "==":
        return same(value, right)
    compare = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}[sign]
    return value is not None and kind_of(value) == kind_of(right) and compare(value, right)


@settings(
    max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much]
)
@given(condition=conditions, n=st.sampled_from([1, 5, 50, 300]))
def test_what_is_found_is_what_brute_force_finds(base, tiny_encoder, condition, n):
    where = text_of(condition)
    expected = {str(number) for number in live() if holds(condition, record(number))}
    question = tiny_encoder.encode(["river 7 of peru"])
    scores, rows = base.search(question, n, where=where)
    found = [base.passage(row).document_id for row in rows[0].tolist() if row >= 0]
    assert set(found) <= expected and len(found) == len(set(found)) == min(n, len(expected)), where
    if expected:
        vectors = base.vectors_of([base.row_of(name)[0] for name in sorted(expected)])
        best = np.sort(vectors @ question[0])[::-1][: len(found)]
        np.testing.assert_allclose(scores[0, : len(found)], best, atol=1e-4)
    words = SearchSettings("bm25", where=where)
    by_words = base.search("river peru", min(n, COUNT), settings=words)
    assert {passage.id.partition("#")[0] for passage in by_words} <= expected
    assert len(by_words) == len(found)
    assert all(passage.metadata["type"] == "jsonl" for passage in by_words)


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        ("id == '7#0'", ["7"]),
        ("document_id in ('7', '8', 'x')", ["7", "8"]),
        ("source > 'z'", []),
        ("title == '' or line == 0", []),
        ("line <= 2 and year == 1999 and type == 'jsonl'", ["1"]),
        ("'1999' < modified < '3' and document_id == '5'", ["5"]),
        ("2019 <= year < 2020.75 and not lang != 'fr'", None),
        ("page is None and document_id == '5'", ["5"]),
    ],
)
def test_attributes_of_passages(base, tiny_encoder, where, ids):
    rows = base.search(tiny_encoder.encode(["river"]), COUNT, where=where)[1][0]
    found = sorted(base.passage(row).document_id for row in rows.tolist() if row >= 0)
    if ids is None:
        ids = [
            str(n)
            for n in live()
            if record(n).get("year") in (2019, 2020.5) and record(n).get("lang") == "fr"
        ]
    assert found == sorted(ids)


def test_unknown_columns_are_named(base):
    with pytest.raises(
        ConfigurationError, match=re.escape("No passage has the column langs. There are draft, lang")
    ):
        base.search("river", settings=SearchSettings(where="year > 1 and langs == 'en'"))
    with pytest.raises(ConfigurationError, match="No passage has the column nothing"):
        base.as_index(SearchSettings(where="nothing == 1"))


@pytest.mark.parametrize(
    "where",
    [
        "",
        "year",
        "year >",
        "1 == 1",
        "year == lang",
        "year >= True",
        "__import__('os').system('true') == 1",
        "year.__class__ == 1",
        "year == [1]",
        "year in '2020'",
        "year in (x for x in lang)",
        "(lambda: 1)() == year",
        "year == 1 if lang else 2",
        "year + 1 == 2",
        "f'{year}' == lang",
        "year == b'1'",
        "year == 1j",
        "year == 1e999",
        "lang == 'a\\0'",
        "lang is 'en'",
        "year == -True",
        "year == 1; import os",
        "not " * 600 + "year == 1",
        "(" * 300 + "year == 1" + ")" * 300,
        "year == 1 or " * 200 + "year == 1",
        "a" * 3000 + " == 1",
    ],
)
def test_what_is_no_condition_is_refused(where):
    with pytest.raises(ConfigurationError, match=r"is invalid: .*Write comparisons"):
        parse(where)


def test_a_copy_of_a_passage_has_the_metadata_of_its_document(tmp_path, tiny_encoder):
    for name, lang in (("a", "en"), ("b", "de")):
        (tmp_path / f"{name}.md").write_text(f"---\ntitle: T\nlang: {lang}\n---\n")
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"id": name, "text": "A river.", "lang": lang}))
    sources = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    base = KnowledgeBase.build(sources, tmp_path / "kb", encoder=tiny_encoder)
    question = tiny_encoder.encode(["river"])
    assert base.search(question, 1, where="lang == 'en'")[1].tolist() == [[0]]
    left = base.delete(sources=[str(tmp_path / "a.jsonl")])
    assert left.search(question, 1, where="lang == 'en'")[1].tolist() == [[-1]]
    assert left.search(question, 1, where="lang == 'de'")[1].tolist() == [[0]]
    assert left.compact().search(question, 1, where="lang == 'de'")[1].tolist() == [[0]]
