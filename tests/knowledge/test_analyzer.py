"""Words of every script: combining marks belong to their letters, and a question's word is found in running text."""

import pytest

from ragweave.knowledge.base import KnowledgeBase
from ragweave.knowledge.bm25 import Analyzer


def words(text: str) -> list[str]:
    return Analyzer("none").words(text)


@pytest.mark.parametrize(
    "text",
    [
        "दिल्ली",
        "தமிழ்",
        "తెలుగు",
        "ಕನ್ನಡ",
        "සිංහල",
        "བོད",
        "ঢাকা",
        "cafe\u0301",
        "ไทย",
        "ລາວ",
        "ខ្មែរ",
        "İzmir",
        "١٢٣",
    ],
)
def test_a_word_with_marks_is_one_word(text):
    assert len(words(text)) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("שָׁלוֹם", "שלום"),
        ("كِتَابٌ", "كتاب"),
        ("كتـــاب", "كتاب"),
        ("İSTANBUL", "istanbul"),
        ("cafe\u0301", "CAFÉ"),
        ("co\u00adoperate", "cooperate"),
        ("\ufb01nal", "final"),
        ("می\u200cروم", "میروم"),
    ],
)
def test_spellings_of_one_word(one, other):
    assert words(one) == words(other)


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("กรุงเทพมหานคร", "ประเทศไทยมีเมืองหลวงคือกรุงเทพมหานคร"),
        ("ภาษาไทย", "นักเรียนเรียนภาษาไทยที่โรงเรียน"),
        ("ນະຄອນຫຼວງວຽງຈັນ", "ປະເທດລາວມີນະຄອນຫຼວງວຽງຈັນ"),
        ("ភ្នំពេញ", "ប្រទេសកម្ពុជាមានរាជធានីភ្នំពេញ។"),
        ("နေပြည်တော်", "မြန်မာနိုင်ငံ၏မြို့တော်မှာနေပြည်တော်ဖြစ်သည်။"),
    ],
)
def test_a_word_within_text_without_spaces(question, text):
    assert set(words(question)) <= set(words(text))
    assert not any("။" in word or "។" in word for word in words(text))


def test_punctuation_and_lone_marks_are_no_words():
    assert words("၊ ။ ។ ๏ \u0301 _ !") == []


def test_a_search_by_words_keeps_letters_and_their_marks_together(tmp_path, tiny_encoder):
    source = tmp_path / "a.txt"
    source.write_text("दिल्ली", encoding="utf-8")
    base = KnowledgeBase.build([source], tmp_path / "kb", encoder=tiny_encoder, language="none")
    assert base.search_text(["दिल्ली"], 1)[0].item() > 0
    assert base.search_text(["दिल"], 1)[0].item() == 0
