"""The HTML of an answer shows its tokens and passages, loads nothing, and escapes every text."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from ragweave.provenance.answers import Answer, AnswerToken, RetrievedPassage
from ragweave.types import Place


def passage(title: str, text: str, posterior: float) -> RetrievedPassage:
    return RetrievedPassage("id", title, text, "source", 1.0, posterior, posterior)


def answer_of(question: str, words: str, title: str, text: str) -> Answer:
    tokens = (AnswerToken(words, (0.75, 0.25), None), AnswerToken("", (0.5, 0.5), None))
    return Answer(question, words, -1.0, (passage(title, text, 0.75), passage("B", "b", 0.25)), tokens)


class Reader(HTMLParser):
    """Collects what a browser would make of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.texts: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert not reader.open
    return reader


def test_what_is_shown():
    html = answer_of("Where?", "In Lima", "Peru", "Lima is there.").to_html()
    texts = " ".join(read(html).texts)
    for expected in ("Where?", "In Lima", "Peru", "Lima is there.", "0.75", "0.25"):
        assert expected in texts
    assert answer_of("Where?", "In Lima", "Peru", "Lima is there.")._repr_html_() == html


def test_nothing_from_elsewhere():
    html = answer_of("Where?", "In Lima", "Peru", "Lima is there.").to_html()
    assert "http" not in html
    assert "url(" not in html


texts = st.text(max_size=20) | st.sampled_from(
    ['<script>alert("1")</script>', "' onclick='x", "&lt;", "</td>"]
)


@given(texts, texts, texts, texts)
def test_texts_are_only_texts(question: str, words: str, title: str, text: str):
    reader = read(answer_of(question, words, title, text).to_html())
    known = {"div", "p", "em", "span", "table", "tr", "td", "th", "details", "summary"}
    assert set(reader.tags) <= known
    assert set(reader.attributes) <= {"style", "class", "title"}


def test_no_answer_and_no_passages():
    html = Answer("Where?", "", -1.0, (), (AnswerToken("", (), None),)).to_html()
    assert "(no answer)" in html
    assert "<table" not in html
    assert "word" in Answer("Where?", "word", -1.0, (), (AnswerToken("word", (), None),)).to_html()


def test_places_are_shown_and_are_plain_data_in_json():
    place = Place(page=3, heading=("<Fees>", "Late"), start=10, end=14)
    cited = replace(passage("A", "Lima", 1.0), source="/srv/files/handbook.pdf", place=place)
    answer = Answer("Where?", "Lima", -1.0, (cited, passage("B", "Ulm", 0.0)))
    texts = read(answer.to_html()).texts
    assert "handbook.pdf, <Fees> > Late, page 3" in texts
    assert "source" in texts
    content = answer.to_dict()
    assert json.loads(json.dumps(content)) == content
    assert content["passages"][1]["place"] is None
    shown = {name: value for name, value in content["passages"][0]["place"].items() if value is not None}
    assert shown == {"page": 3, "heading": ["<Fees>", "Late"], "start": 10, "end": 14}
