"""Chunking by words, sentences, tokens and headings: nothing is lost, nothing is too long, positions are right."""

import itertools
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ragweave import KnowledgeBase
from ragweave.errors import ConfigurationError, SourceError
from ragweave.knowledge.ingest.chunking import chunk
from ragweave.knowledge.ingest_settings import Chunking
from ragweave.types import Document


def texts_of(text: str, words: int = 100) -> list[str]:
    return [passage.text for passage in chunk(Document("d", "T", text, "s"), Chunking(words=words))]


def test_passages_keep_title_source_and_ids():
    passages = chunk(Document("docs/a.md", "Title", "One two. " * 40, "/docs/a.md"), Chunking(words=20))
    assert [passage.id for passage in passages] == [f"docs/a.md#{n}" for n in range(len(passages))]
    assert len(passages) == 4
    assert {(p.document_id, p.title, p.source) for p in passages} == {("docs/a.md", "Title", "/docs/a.md")}


def test_lengths_are_about_equal():
    lengths = [len(text.split()) for text in texts_of("One two three four five. " * 33)]  # 165 words
    assert lengths == [85, 80]
    lengths = [len(text.split()) for text in texts_of("One two three four five. " * 200)]
    assert all(90 <= length <= 110 for length in lengths)


@pytest.mark.parametrize(("words", "passages"), [(150, 1), (155, 2)])
def test_a_short_document_stays_whole(words, passages):
    assert len(texts_of("One two three four five. " * (words // 5))) == passages


def test_a_long_sentence_is_cut_between_words():
    texts = texts_of(" ".join(f"w{n}" for n in range(350)))
    assert [len(text.split()) for text in texts] == [87, 88, 87, 88]
    assert " ".join(texts).split() == [f"w{n}" for n in range(350)]


def test_text_without_spaces_is_cut():
    assert max(map(len, texts_of("水" * 1000))) <= 150
    assert max(map(len, texts_of("x" * 100_000))) <= 150 * 40
    assert len(texts_of("水是生命之源。" * 100)) > 5


@pytest.mark.parametrize("text", ["", " \n\t ", "\u00a0"])
def test_no_text_no_passages(text):
    assert texts_of(text) == []


def test_words_below_one():
    with pytest.raises(ConfigurationError, match="at least 1"):
        texts_of("text", words=0)


def test_list_items_keep_their_lines():
    assert texts_of("Capital: Lima\nArea: 5 km2. Large.\n\nThe end.") == [
        "Capital: Lima\nArea: 5 km2. Large.\nThe end."
    ]


ANY_TEXT = st.text(
    alphabet=st.one_of(st.sampled_from("aB1 .!?\n-:#。水\u00a0\r\t\"'()…"), st.characters(codec="utf-8")),
    max_size=400,
)


@given(ANY_TEXT, st.integers(1, 30))
@example("a. B", 1)
@settings(max_examples=300, deadline=None)
def test_passages_hold_all_of_the_text_in_order(text, words):
    texts = texts_of(text, words)
    assert "".join("".join(texts).split()) == "".join(text.split())
    assert all(texts)


@given(st.lists(st.integers(1, 40), max_size=60), st.integers(5, 50))
@settings(max_examples=200, deadline=None)
def test_no_passage_is_far_above_the_budget(lengths, words):
    text = " ".join("Word" + " word" * (length - 1) + "." for length in lengths)
    counts = [len(passage.split()) for passage in texts_of(text, words)]
    assert sum(counts) == sum(lengths)
    assert all(count <= 1.5 * words for count in counts)


KINDS = ["sentences", "words", "tokens", "markdown"]
MARKDOWN = (
    """Before all.

# Guide

Text of the guide.

## Install *now*

```sh
# no heading
make
```

### Linux

Use the package. It is small. """
    + "It works well. " * 30
    + """

> # quoted, no heading of ours

## Empty

## Use ##

Ask.
"""
)


def cut(text: str, encoder=None, title: str = "T", source: str = "d.md", **settings):
    return chunk(Document("d", title, text, source), Chunking(**settings), tokenizer=encoder)


def test_words_are_counted_exactly_as_in_the_paper():
    passages = cut("  ".join(f"w{n}" for n in range(250)), kind="words")
    assert [len(passage.text.split()) for passage in passages] == [100, 100, 50]
    assert " ".join(passage.text for passage in passages) == " ".join(f"w{n}" for n in range(250))


def test_markdown_passages_stay_below_their_headings():
    passages = cut(MARKDOWN, kind="markdown", words=30, title="Guide")
    assert list(dict.fromkeys(passage.title for passage in passages)) == [
        "Guide",
        "Guide > Install now",
        "Guide > Install now > Linux",
        "Guide > Empty",
        "Guide > Use",
    ]
    texts = {passage.title: passage.text for passage in passages}
    assert "# no heading" in texts["Guide > Install now"]
    assert texts["Guide > Empty"] == "## Empty"
    assert texts["Guide > Use"] == "Ask."
    linux = [passage for passage in passages if passage.title.endswith("Linux")]
    assert len(linux) > 2
    assert linux[0].text.startswith("Use the package.")
    assert "quoted" in linux[-1].text


def test_other_files_than_markdown_are_cut_at_sentences():
    text = "# One\n\nA text.\n\n# Two\n\nAnother."
    assert cut(text, kind="markdown", source="d.txt") == cut(text, source="d.txt")


def test_lines_of_markdown_are_those_of_the_file():
    passages = chunk(Document("d", "Guide", MARKDOWN, "d.md", line=1), Chunking("markdown"))
    lines = MARKDOWN.split("\n")
    for passage in passages:
        assert passage.text.split()[0] in lines[passage.line - 1]


TEXT_OF_WORDS = st.lists(st.text("abc .!?#\n1", min_size=1, max_size=9), max_size=60).map(" ".join)


@settings(deadline=None)
@given(TEXT_OF_WORDS, st.sampled_from(["sentences", "words", "tokens"]), st.integers(1, 12))
def test_passages_hold_every_word_once_and_have_its_position(tiny_encoder, text, kind, words):
    passages = cut(text, tiny_encoder, kind=kind, words=words, tokens=words + 8)
    if kind != "tokens":
        assert " ".join(passage.text for passage in passages).split() == text.split()
    assert "".join("".join(passage.text.split()) for passage in passages) == "".join(text.split())
    for passage in passages:
        assert passage.text.split() == text[passage.start : passage.end].split()


@settings(deadline=None)
@given(TEXT_OF_WORDS, st.sampled_from(KINDS), st.integers(1, 4))
@example("1 1 1 1 1 1 1 ? 1 ? 1 1 1 1 1 1 1 1 1 1 1", "sentences", 3)  # two words of its own in the second
def test_the_overlap_is_the_end_of_the_passage_before(tiny_encoder, text, kind, overlap):
    passages = cut(text, tiny_encoder, kind=kind, words=8, tokens=20, overlap=overlap)
    for before, after in itertools.pairwise(passages):
        assert before.start <= after.start <= before.end or kind == "markdown"
        if kind in {"sentences", "words"}:
            expected = min(overlap, len(text[before.start : before.end].split()))
            assert len(text[after.start : before.end].split()) == expected
    for passage in passages:
        assert passage.text.split() == text[passage.start : passage.end].split()


@settings(deadline=None)
@given(TEXT_OF_WORDS, st.text("ab ", max_size=12), st.integers(24, 40), st.integers(0, 2))
def test_passages_never_have_more_tokens_than_allowed(tiny_encoder, text, title, tokens, overlap):
    for passage in cut(
        text, tiny_encoder, title=title.strip(), kind="tokens", tokens=tokens, overlap=overlap
    ):
        assert tiny_encoder.passage_token_count(passage.title, passage.text) <= tokens


def test_the_default_size_in_tokens_is_what_the_encoder_reads(tiny_encoder):
    text = "Lima is the capital of Peru. The river is in Ulm. " * 20
    passages = cut(text, tiny_encoder, kind="tokens")
    counts = [tiny_encoder.passage_token_count(passage.title, passage.text) for passage in passages]
    assert max(counts) <= tiny_encoder.max_length
    assert min(counts[:-1]) > tiny_encoder.max_length // 2
    assert all(passage.text.endswith(".") for passage in passages)


@pytest.mark.parametrize(
    "clause", ["กรุงเทพมหานครเป็นเมืองหลวงที่ใหญ่ที่สุด", "ນະຄອນຫຼວງວຽງຈັນ", "ភ្នំពេញជារាជធានី", "နေပြည်တော်"]
)
@pytest.mark.parametrize("separator", ["", " "])
def test_scripts_without_spaces_are_cut_between_letters_with_their_marks(clause, separator):
    text = separator.join([clause] * 200)
    for kind in ("words", "sentences"):
        texts = [passage.text for passage in cut(text, kind=kind, words=20)]
        assert "".join(texts).replace(" ", "") == text.replace(" ", "")
        assert max(map(len, texts)) < 300
        assert not any(unicodedata.category(text[0]).startswith("M") for text in texts)
    if separator:
        assert all(set(text.split()) == {clause} for text in texts)


def test_settings_out_of_range(tiny_encoder):
    for wrong in (
        {"kind": "pages"},
        {"tokens": 0},
        {"overlap": -1},
        {"words": 10, "overlap": 6},
        {"kind": "tokens", "tokens": 10, "overlap": 6},
    ):
        with pytest.raises(ConfigurationError):
            Chunking(**wrong)
    with pytest.raises(ConfigurationError, match="needs the encoder"):
        cut("text", kind="tokens")
    with pytest.raises(SourceError, match="leaves 0 of 20 tokens"):
        cut("text", tiny_encoder, title="long " * 30, kind="tokens", tokens=20)


def test_add_uses_the_chunking_of_the_build(tmp_path, tiny_encoder):
    (tmp_path / "a.md").write_text("# A\n\nOne.\n\n## B\n\nTwo.")
    base = KnowledgeBase.build(
        [tmp_path / "a.md"], tmp_path / "kb", encoder=tiny_encoder, chunking=Chunking("markdown", overlap=5)
    )
    (tmp_path / "c.md").write_text("# C\n\nThree.\n\n## D\n\nFour.")
    base = base.add([tmp_path / "c.md"], encoder=tiny_encoder)
    assert base.manifest.chunking == Chunking("markdown", overlap=5)
    assert [base.passage(row).title for row in range(4)] == ["A", "A > B", "C", "C > D"]
    assert base.compact().info()["chunking"] == "markdown"


@pytest.mark.parametrize("kind", ["sentences", "words"])
def test_a_text_that_is_cut_in_parts_for_its_length(kind):
    paragraph = "It rains in Lima. " * 30 + "\n\n"
    document = Document("a", "", paragraph * 2200 + "word " * 250_000 + "x" * 600_000, "a.txt")
    passages = chunk(document, Chunking(kind))
    assert "".join(passage.text for passage in passages).replace(" ", "").replace("\n", "") == "".join(
        document.text.split()
    )
    assert all(
        document.text[passage.start : passage.end].split() == passage.text.split() for passage in passages
    )
