import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ragweave.errors import ConfigurationError
from ragweave.knowledge.chunking import chunk
from ragweave.knowledge.passages import Document
from ragweave.knowledge.sentences import blocks


def texts_of(text: str, words: int = 100) -> list[str]:
    return [passage.text for passage in chunk(Document("d", "T", text, "s"), words=words)]


def sentences_of(text: str) -> list[str]:
    return [sentence for block in blocks(text) for sentence in block]


def test_passages_keep_title_source_and_ids():
    passages = chunk(Document("docs/a.md", "Title", "One two. " * 40, "/docs/a.md"), words=20)
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


def test_text_without_spaces_is_cut_too():
    assert max(map(len, texts_of("水" * 1000))) <= 150
    assert max(map(len, texts_of("x" * 100_000))) <= 150 * 40
    assert len(texts_of("水是生命之源。" * 100)) > 5


@pytest.mark.parametrize("text", ["", " \n\t ", "\u00a0"])
def test_no_text_no_passages(text):
    assert texts_of(text) == []


def test_words_below_one():
    with pytest.raises(ConfigurationError, match="at least 1"):
        texts_of("text", words=0)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Dr. Smith met J. K. Rowling. She left.", ["Dr. Smith met J. K. Rowling.", "She left."]),
        ("It is 3.5 km. Then 4.", ["It is 3.5 km.", "Then 4."]),
        ("The U.S. Army came. It won.", ["The U.S. Army came.", "It won."]),
        ("“Really?” he said. “Yes!” Bo left.", ["“Really?” he said.", "“Yes!”", "Bo left."]),
        ("Wait… What?! No.", ["Wait…", "What?!", "No."]),
        ("See e.g. Fig. 3 and cf. No. 5. Done.", ["See e.g. Fig. 3 and cf. No. 5.", "Done."]),
        ("这是中文。第二句！", ["这是中文。", "第二句！"]),  # noqa: RUF001
        ("a line that was\nwrapped here. Next.", ["a line that was wrapped here.", "Next."]),
        ("Heading\nThe text goes on.", ["Heading", "The text goes on."]),
        ("# Heading\ntext", ["# Heading", "text"]),
        ("one\n\ntwo", ["one", "two"]),
        (
            "- item one\n- item two\n1. First\n2) Second",
            ["- item one", "- item two", "1. First", "2) Second"],
        ),
        ("Capital: Lima\nArea (total): 5 km2", ["Capital: Lima", "Area (total): 5 km2"]),
    ],
)
def test_sentences(text, sentences):
    assert sentences_of(text) == sentences


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
