"""Sentence splitting: abbreviations, quotations, other scripts, headings and lists."""

import pytest

from ragweave.knowledge.ingest.chunking import blocks


def sentences_of(text: str) -> list[str]:
    return [sentence for block in blocks(text) for sentence in block]


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
        ("राम घर गया। सीता वन में है॥ अंत", ["राम घर गया।", "सीता वन में है॥", "अंत"]),
        ("من أنت؟ أنا علي.", ["من أنت؟", "أنا علي."]),
        ("یہ پہلا جملہ ہے۔ دوسرا", ["یہ پہلا جملہ ہے۔", "دوسرا"]),  # noqa: RUF001
        ("ភ្នំពេញជារាជធានី។ប្រទេសតូច៕", ["ភ្នំពេញជារាជធានី។", "ប្រទេសតូច៕"]),
        ("ភ្នំពេញជារាជធានី។ ប្រទេសតូច៕", ["ភ្នំពេញជារាជធានី។", "ប្រទេសតូច៕"]),
        ("နေပြည်တော်။မြို့", ["နေပြည်တော်။", "မြို့"]),
        (
            "กรุงเทพเป็นเมืองหลวง แม่น้ำเจ้าพระยายาว 372 กิโลเมตร",
            ["กรุงเทพเป็นเมืองหลวง", "แม่น้ำเจ้าพระยายาว 372 กิโลเมตร"],
        ),
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


@pytest.mark.parametrize(
    "piece", [".", "A. ", ". ", '."', "1. ", "A.", '"', "\n", " \n", "a.\n", "# ", "The U.S. "]
)
def test_a_million_characters_of_one_kind(piece):
    text = piece * (10**6 // len(piece))
    assert sum(len(sentence) for block in blocks(text) for sentence in block) <= len(text)


def test_abbreviations_in_a_long_sentence():
    text = "word " * 100 + "and Dr. Who of the U.S. Army met at 5 p.m. No. 7 came. Then it rained."
    assert [sentence[-18:] for block in blocks(text) for sentence in block] == [
        "5 p.m. No. 7 came.",
        "Then it rained.",
    ]
