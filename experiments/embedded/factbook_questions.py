"""Generate questions with exact answers from the CIA World Factbook, for training and evaluation.

Each kind of fact has a path into the Factbook's data, a function that extracts a short answer from the text, and
several wordings. The first answer always occurs verbatim in the document named by `passage`, as written by
`examples/world_factbook/documents.py`; the other answers are accepted variants. A fixed hash splits the countries
into train, dev and test, so that no country is in two splits. From the root of the repository::

    python -m experiments.embedded.factbook_questions --output DIR
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from examples.world_factbook.documents import (
    country_documents,
    country_name,
    field_pieces,
    load_countries,
    slug,
    with_article,
)

MAX_ANSWER_WORDS = 8
SPLITS = ("train", "dev", "test")
TEST_COUNTRIES = frozenset(
    {"France", "Japan", "Brazil", "Kenya", "Mongolia", "Iceland", "New Zealand", "Peru"}
)  # the demo asks about them
LEFT_OUT = frozenset({"World", "European Union"})

Question = dict[str, Any]


class Found(NamedTuple):
    """An answer in a text, and words for the question that come from the same text.

    Attributes:
        answers: The span as it stands in the text, then variants.
        words: Values for the wording's other placeholders.
    """

    answers: list[str]
    words: dict[str, str] = {}  # noqa: RUF012 - never changed


Reader = Callable[[str], list[Found]]


def _whole(*answers: str) -> list[Found]:
    """Returns the answers as one finding, or none if there is no answer."""
    stripped = (answer.strip(" ,;:") for answer in answers)
    kept = list(dict.fromkeys(re.sub(r"(?<!\b[A-Z])\.$", "", answer) for answer in stripped))
    return [Found([answer for answer in kept if answer])] if kept and kept[0] else []


def first_clause(text: str) -> list[Found]:
    """Reads up to the first semicolon or bracket."""
    return _whole(re.split(r"; | \(", text)[0])


def first_item(text: str) -> list[Found]:
    """Reads the first entry of a list."""
    return _whole(re.split(r"[;,] | \(| and ", text)[0])


def first_name(text: str) -> list[Found]:
    """Reads the first of two names such as ``US or USA``, with both as a variant."""
    clause = re.split(r"; | \(", text)[0]
    return _whole(clause.split(" or ")[0], clause)


def hazard(text: str) -> list[Found]:
    """Reads the first hazard of a list, unless the text says that it is rare."""
    return first_item(text) if "rare" not in text.split("; ")[0] else []


def whole_list(text: str) -> list[Found]:
    """Reads a short list as it stands."""
    return _whole(re.sub(r" \([^()]*\)$", "", text)) if ";" not in text else []


def first_share(text: str) -> list[Found]:
    """Reads the name of the first entry of a list of shares, such as ``Roman Catholic 47%, Muslim 4%``."""
    match = re.match(r"([^\d,;(<>]+?) (?:\([^)]*\) )?[\d.]+%", text)
    return _whole(match[1]) if match and not match[1].startswith(("other", "none", "unspec", "more")) else []


def share_of_second(text: str) -> list[Found]:
    """Reads the share of a named entry of a list of shares."""
    found = re.findall(r", ([A-Z][^\d,;()<>]{2,30}?) ([\d.]+%)", text)
    return [Found([share], {"entry": entry}) for entry, share in found]


def quantity(text: str) -> list[Found]:
    """Reads a number with its unit, and the number alone as a variant."""
    match = re.match(r"((?:about |approximately )?(-?\$?-?\d[\d.,]*%?(?: (?:m|b|tr)illion)?)[^(;,]*)", text)
    if not match:
        return []
    number = match[2].rstrip(".,")
    return _whole(match[1], number) if len(match[1].split()) <= 5 else _whole(number)


def number(text: str) -> list[Found]:
    """Reads a number without what follows it."""
    match = re.match(r"-?\$?-?\d[\d.,]*%?(?: (?:m|b|tr)illion)?", text)
    return _whole(match[0].rstrip(".,")) if match else []


def years(text: str) -> list[Found]:
    """Reads a number of years, with and without the unit."""
    match = re.match(r"(\d[\d.]*) years", text)
    return _whole(match[0], match[1]) if match else []


_DATE = (
    r"\d{1,2} (?:January|February|March|April|May|June|July|August|September|October|November|December)"
    r" \d{4}"
)


def independence_date(text: str) -> list[Found]:
    """Reads the date or year of independence from another country, with the year as a variant."""
    match = re.match(rf"({_DATE}|\d{{4}}) \(from ", text)
    return _whole(match[1], match[1][-4:]) if match else []


def independence_year(text: str) -> list[Found]:
    """Reads the year of independence from another country."""
    match = re.match(rf"({_DATE}|\d{{4}}) \(from ", text)
    return _whole(match[1][-4:]) if match else []


def from_whom(text: str) -> list[Found]:
    """Reads from which country another became independent."""
    match = re.match(r"[^;(]*\(from (?:the )?([^;,()]+)[;,)]", text)
    return (
        _whole(match[1], f"the {match[1]}")
        if match and not re.search(r"\d|mandate|trustee|admin|control", match[1])
        else []
    )


def last_date(text: str) -> list[Found]:
    """Reads the date at which the latest of several acts took effect."""
    latest = text.rpartition("; ")[2]
    dates = re.findall(_DATE, latest)
    return _whole(dates[-1], dates[-1][-4:]) if len(dates) == 1 or ("effective" in latest and dates) else []


_TITLES = frozenset(
    {"Acting", "Administrator", "Amb.", "Ambassador", "Amir", "Ayatollah", "Captain", "Caretaker",
     "Chairman", "Chairperson", "Chancellor", "Chief", "Colonel", "Commissioner", "Council", "Crown",
     "Dame", "Dr", "Dr.", "Duke", "Emir", "Emperor", "Executive", "Federal", "Field", "First", "Gen.",
     "General", "Governor", "Grand", "Head", "High", "Honorable", "Interim", "Junta", "King", "Leader",
     "Lieutenant", "Lord", "Lt.", "Maj.", "Major", "Marshal", "Mayor", "Military", "Minister", "Pope",
     "Premier", "President", "Prime", "Prince", "Princess", "Queen", "Regent", "Representative",
     "Secretary", "Sheikh", "Sir", "Sovereign", "State", "Sultan", "Supreme", "Taoiseach",
     "Transitional", "Vice", "Administrative", "and", "of", "the"}
)  # fmt: skip


def person(text: str) -> list[Found]:
    """Reads who holds an office, without and with the title."""
    full = re.split(r" \(|; ", text)[0]
    words = full.split()
    while words and words[0].strip(",") in _TITLES:
        words.pop(0)
    name = " ".join(words)
    if not re.search(r"[A-Z]{2,}", name) or re.search(r"[\d,]| and |vacant", name) or len(words) > 6:
        return []
    return _whole(name, full)


def in_office_since(text: str) -> list[Found]:
    """Reads since when a person holds an office."""
    match = re.search(rf"\(since ({_DATE})\)", text)
    named = person(text)
    if not match or not named or match.start() > 80:
        return []
    return [Found([match[1], match[1][-4:]], {"person": named[0].answers[0]})]


def currency(text: str) -> list[Found]:
    """Reads a currency's name from ``euros (EUR) per US dollar``."""
    match = re.match(r"([^()\d]+?) \(([A-Z]{3})\) per US dollar", text)
    if not match:
        return []
    name = match[1]
    return _whole(name, f"{name} ({match[2]})", name.removesuffix("s"), match[2])


def currency_code(text: str) -> list[Found]:
    """Reads a currency's three-letter code."""
    match = re.match(r"[^()\d]+? \(([A-Z]{3})\) per US dollar", text)
    return _whole(match[1]) if match else []


def place_name(text: str) -> list[Found]:
    """Reads the name of a point from ``Mont Blanc 4,810 m``."""
    match = re.match(r"([^\d;]+?) (?:more than |about )?-?\d", text)
    if not match:
        return []
    name = match[1].strip()
    return _whole(re.sub(r" \([^()]*\)$", "", name), name)


def place_height(text: str) -> list[Found]:
    """Reads the height of a point, with the point's name for the question."""
    match = re.match(r"([^\d;(]+?) (-?\d[\d,.]* m)\b", text)
    return [Found([match[2], match[2].removesuffix(" m")], {"entry": match[1]})] if match else []


def _borders(text: str) -> list[tuple[str, str]]:
    entries = [re.fullmatch(r"([^\d(;]+?) ([\d,.]+ km)", entry) for entry in text.split("; ")]
    return [(entry[1], entry[2]) for entry in entries if entry] if all(entries) else []


def longest_border(text: str) -> list[Found]:
    """Reads the neighbour with the longest border."""
    borders = _borders(text)
    length = {name: float(km.removesuffix(" km").replace(",", "")) for name, km in borders}
    return _whole(max(length, key=lambda name: length[name])) if len(borders) > 1 else []


def border_length(text: str) -> list[Found]:
    """Reads the length of the border with each neighbour."""
    return [Found([km, km.removesuffix(" km")], {"entry": name}) for name, km in _borders(text)]


def only_neighbour(text: str) -> list[Found]:
    """Reads the neighbour of a country that has one."""
    borders = _borders(text)
    return _whole(borders[0][0]) if len(borders) == 1 and "Naval" not in text else []


def official_language(text: str) -> list[Found]:
    """Reads the first language marked as official."""
    match = re.search(r"(?:^|, )([^,;()\d%]+?)(?: [\d.<]+%)? \(official\b", text)
    return _whole(match[1]) if match else []


def second_language(text: str) -> list[Found]:
    """Reads the second of two official languages."""
    found = re.findall(r"(?:^|, )([^,;()\d%]+?)(?: [\d.<]+%)? \(official\b", text)
    return [Found([found[1]], {"entry": found[0]})] if len(found) == 2 else []


def largest_city(text: str) -> list[Found]:
    """Reads the first city of a list in order of population."""
    match = re.match(r"[\d.,]+(?: million)? ([^,;(]+?)(?: \(capital\))?(?:,| \(|$)", text)
    return _whole(match[1]) if match and "," in text else []


def city_population(text: str) -> list[Found]:
    """Reads the population of each city of a list."""
    found = re.findall(r"(?:^|, )(\d[\d.,]*(?: million)?) ([^,;(]+?)(?= \(|,|$)", text)
    return [Found([count], {"entry": city}) for count, city in found]


def quoted_title(text: str) -> list[Found]:
    """Reads a title in quotation marks, with its translation as a variant."""
    match = re.match(r"\"([^\"]+)\"(?: \(\"?([^()\"]+)\"?\))?", text)
    return _whole(match[1], match[2] or "") if match else []


def holiday(text: str) -> list[Found]:
    """Reads the name of a national holiday."""
    match = re.match(r"([^,;(]+?)(?: \([^)]*\))?, \d", text)
    return _whole(match[1]) if match else []


def holiday_date(text: str) -> list[Found]:
    """Reads the day of a national holiday."""
    match = re.match(r"([^,;(]+?)(?: \([^)]*\))?, (\d{1,2} [A-Z][a-z]+)", text)
    return [Found([match[2]], {"entry": match[1]})] if match else []


def band_count(text: str) -> list[Found]:
    """Reads how many bands a flag has."""
    match = re.match(
        r"(two|three|four|five|six|seven|nine|eleven|thirteen) (?:equal )?(?:horizontal|vertical)", text
    )
    return _whole(match[1]) if match else []


def band_direction(text: str) -> list[Found]:
    """Reads which way the bands of a flag run."""
    match = re.match(r"(?:two|three|four|five|six|seven|nine) (?:equal )?(horizontal|vertical)", text)
    return _whole(match[1]) if match else []


def symbol_meaning(text: str) -> list[Found]:
    """Reads what each color or figure stands for."""
    pattern = (
        r"(?:^|[;,] (?:and )?)(?:the )?([a-z-]+(?: [a-z]+)?) "
        r"(?:stands? for|represents?|symbolizes?) ([^;,.()]+)"
    )
    return [
        Found([meaning.strip()], {"entry": entry})
        for entry, meaning in re.findall(pattern, text)
        if not re.search(r"\b(?:and|it|they|which|also|can|may|colors?)\b|[^s]s$", entry)
        and len(meaning.split()) <= MAX_ANSWER_WORDS
    ]


def named_after(text: str) -> list[Found]:
    """Reads what a place is named after."""
    match = re.search(r"named (?:after|for|in honor of) ([^;,.()\"]+)", text)
    return _whole(match[1], match[1].removeprefix("the ")) if match else []


def quoted_meaning(text: str) -> list[Found]:
    """Reads what a name means, in quotation marks."""
    match = re.search(r"mean(?:s|ing) (?:\"the )?\"?([A-Za-z' -]+),?\"", text)
    return _whole(match[1]) if match and "probabl" not in text else []


def utc_offset(text: str) -> list[Found]:
    """Reads a time zone such as ``UTC+1``."""
    match = re.match(r"UTC[+-]?\d+(?:[.:]\d+)?", text)
    return _whole(match[0]) if match else []


def washington_offset(text: str) -> list[Found]:
    """Reads the difference to the time in Washington."""
    match = re.search(r"\(((\d+(?:\.\d+)? hours?) (?:ahead|behind))(?: of)? Washington", text)
    return _whole(match[1], match[2]) if match else []


def suffrage_age(text: str) -> list[Found]:
    """Reads from which age people may vote."""
    match = re.match(r"((\d\d) years) of age", text)
    return _whole(match[1], f"{match[1]} of age", match[2]) if match else []


def division_count(text: str) -> list[Found]:
    """Reads how many first-order divisions there are, with their kind for the question."""
    match = re.match(r"(\d+) ([a-z][a-z ]*?s)(?: \(|;|:)", text)
    return [Found([match[1]], {"entry": match[2]})] if match else []


def domain(text: str) -> list[Found]:
    """Reads an Internet country code."""
    match = re.match(r"(\.[a-z]{2})\b", text)
    # A leading dot belongs to the answer, so it is kept here.
    return [Found([match[1], match[1][1:]])] if match else []


def force_name(text: str) -> list[Found]:
    """Reads the name of the armed forces."""
    match = re.match(r"(?:the )?([A-Z][^:;()]+?)(?: \([^)]*\))?: ", text)
    return _whole(match[1]) if match and "Ministry" not in match[1] else []


def service_age(text: str) -> list[Found]:
    """Reads the age for voluntary service."""
    match = re.match(r"(?:generally )?((\d\d(?:-\d\d)?)(?: years of age)?) for voluntary", text)
    return _whole(match[2], match[1]) if match else []


def conscription(text: str) -> list[Found]:
    """Reads whether there is conscription, where the text says that there is none."""
    return _whole("no conscription", "no") if "no conscription" in text else []


def dollars_or_percent(text: str) -> list[Found]:
    """Reads an amount of money or a percentage."""
    match = re.match(r"(-?\$?-?[\d.,]+%?(?: (?:m|b|tr)illion)?)( of GDP)?", text)
    if not match or not re.search(r"\d", match[0]):
        return []
    return _whole(match[1], match[0])


def legal_basis(text: str) -> list[Found]:
    """Reads the kind of a legal system."""
    match = re.match(
        r"((?:mixed|civil|common|Islamic|religious|customary)[^;(]*?)(?=[;(]| influenced| based on|$)", text
    )
    if not match or ("mixed" in match[1] and " and " not in match[1]):
        return []
    return _whole(match[1], match[1].removesuffix(" system"))


def region(text: str) -> list[Found]:
    """Reads the part of the world from a location."""
    return _whole(re.split(r"[,;] ", text)[0])


def between(text: str) -> list[Found]:
    """Reads between which two neighbours a country lies."""
    match = re.search(r", between ((?:the )?[A-Z][^,;()]+? and (?:the )?[A-Z][^,;()]+)$", text)
    return _whole(match[1]) if match else []


def yes_or_no(text: str) -> list[Found]:
    """Reads a yes or no."""
    match = re.match(r"(yes|no)(?=$|[;,] )", text)
    return _whole(match[1]) if match else []


def river_or_lake(text: str) -> list[Found]:
    """Reads the first river or lake of a list."""
    match = re.match(
        r"(?:the )?([A-Z][^;\d]*?)(?: river (?:source|mouth)(?: and mouth)?)?(?: \(shared[^)]*\))? - \d", text
    )
    return _whole(re.sub(r" \([^()]*\)$", "", match[1]), match[1]) if match else []


def river_length(text: str) -> list[Found]:
    """Reads the length of each river, or the area of each lake."""
    pattern = (
        r"(?:^|; )(?:the )?([A-Z][^;()\d]*?)(?: river (?:source|mouth)(?: and mouth)?)?(?: \([^)]*\))*"
        r" - ([\d,]+ (?:sq )?km)"
    )
    return [
        Found([size, re.sub(r" .*", "", size)], {"entry": entry}) for entry, size in re.findall(pattern, text)
    ]


class Kind(NamedTuple):
    """A kind of fact.

    Attributes:
        name: Part of the ids of its questions.
        path: Section, field and sub-field, separated by ``>``; ``#label`` selects a labelled part; a
            sub-field that ends in ``*`` matches the first that starts so.
        read: Finds answers in the text at the path.
        wordings: Questions separated by ``|``; ``{c}`` is the country, ``{cs}`` its possessive.
        section: Section whose document must hold the answer; that of the path if empty.
        context: Word that must stand in the same sentence as the answer.
    """

    name: str
    path: str
    read: Reader
    wordings: str
    section: str = ""
    context: str = ""


KINDS = (
    # --- Government ---
    Kind("capital", "Government>Capital>name", first_clause,
         "What is the capital of {c}?|Which city is {cs} capital?|What's the name of the capital city of "
         "{c}?|Name the capital of {c}.|In which city does {c} have its capital?"),
    Kind("time-zone", "Government>Capital>time difference", utc_offset,
         "Which UTC offset does the capital of {c} use?|What time zone is {cs} capital in?|In {c}, what "
         "is the time difference to UTC?|What is the standard time zone of {c}?"),
    Kind("washington-time", "Government>Capital>time difference", washington_offset,
         "How far is the capital of {c} ahead of or behind Washington, DC?|What is the time difference "
         "between {cs} capital and Washington, DC?|By how many hours does the time in {c} differ "
         "from that in Washington, DC?"),
    Kind("capital-named-after", "Government>Capital>etymology", named_after,
         "What is the capital of {c} named after?|After whom or what was {cs} capital named?|Where does "
         "the name of the capital of {c} come from?"),
    Kind("capital-meaning", "Government>Capital>etymology", quoted_meaning,
         "What does the name of {cs} capital mean?|What is the meaning of the name of the capital of {c}?|"
         "How is the name of {cs} capital city translated?"),
    Kind("long-name", "Government>Country name>conventional long form", first_clause,
         "What is the official name of {c}?|What is the conventional long form of {cs} name?|What is {c} "
         "formally called?|Give the full official name of {c}."),
    Kind("local-name", "Government>Country name>local short form", first_item,
         "What do local people call {c}?|What is the local short name of {c}?|What is {c} called locally?|"
         "By what short name is {c} known in its own language?"),
    Kind("former-name", "Government>Country name>former", first_item,
         "What was {c} formerly called?|What is a former name of {c}?|Under which name was {c} known "
         "before?"),
    Kind("abbreviation", "Government>Country name>abbreviation", first_name,
         "What is the abbreviation for {c}?|How is the name of {c} abbreviated?|Which initials are used "
         "for {c}?"),
    Kind("name-origin", "Government>Country name>etymology", named_after,
         "What is {c} named after?|Where does the name of {c} come from?|After whom or what is {c} named?"),
    Kind("name-meaning", "Government>Country name>etymology", quoted_meaning,
         "What does the name of {c} mean?|What is the meaning of {cs} name?|How can the name of {c} be "
         "translated?"),
    Kind("government-type", "Government>Government type", first_clause,
         "What type of government does {c} have?|How is {c} governed?|What is {cs} form of government?|"
         "Which kind of state is {c}?"),
    Kind("independence-date", "Government>Independence", independence_date,
         "When did {c} become independent?|On what date did {c} gain independence?|What is the date of "
         "{cs} independence?|Since when has {c} been independent?"),
    Kind("independence-year", "Government>Independence", independence_year,
         "In what year did {c} become independent?|In which year did {c} achieve independence?|What year "
         "did {c} gain its independence?"),
    Kind("independence-background", "Government>Independence", independence_year,
         "In what year did {c} gain independence?|Which year brought {c} its independence?|In which year "
         "did {c} become an independent country?", "Introduction", "independen"),
    Kind("independence-from", "Government>Independence", from_whom,
         "From which country did {c} gain independence?|Who ruled {c} before it became independent?|{c} "
         "became independent from whom?|From whom did {c} win its independence?"),
    Kind("holiday", "Government>National holiday", holiday,
         "What is the national holiday of {c}?|What is {cs} national holiday called?|Which national "
         "holiday is celebrated in {c}?"),
    Kind("holiday-date", "Government>National holiday", holiday_date,
         "When is {cs} national holiday?|On which day does {c} celebrate {entry}?|What is the date of "
         "{entry} in {c}?|When do people in {c} celebrate their national holiday?"),
    Kind("legal-system", "Government>Legal system", legal_basis,
         "What kind of legal system does {c} have?|Which legal system is used in {c}?|What is {cs} legal "
         "system based on?|How would you describe the law of {c}?"),
    Kind("constitution", "Government>Constitution>history", last_date,
         "When did the current constitution of {c} take effect?|What is the date of {cs} latest "
         "constitution?|From when does {cs} present constitution date?|When was the latest constitution "
         "of {c} adopted?"),
    Kind("dual-citizenship", "Government>Citizenship>dual citizenship recognized", yes_or_no,
         "Does {c} recognize dual citizenship?|Can one be a citizen of {c} and of another country?|Is "
         "dual citizenship recognized in {c}?"),
    Kind("naturalization", "Government>Citizenship>residency requirement for naturalization", years,
         "How long must one live in {c} before naturalization?|How many years of residency does {c} "
         "require for naturalization?|What is the residency requirement for becoming a citizen of {c}?"),
    Kind("suffrage", "Government>Suffrage", suffrage_age,
         "At what age can people vote in {c}?|What is the voting age in {c}?|How old must voters be in "
         "{c}?|From which age may citizens of {c} vote?"),
    Kind("chief-of-state", "Government>Executive branch>chief of state", person,
         "Who is the chief of state of {c}?|Who is {cs} head of state?|Name the head of state of {c}.|Who "
         "is at the head of the state in {c}?|Which person is chief of state in {c}?"),
    Kind("chief-since", "Government>Executive branch>chief of state", in_office_since,
         "Since when has {person} been chief of state of {c}?|When did {person} become head of state of "
         "{c}?|On what date did {person} take office as {cs} chief of state?"),
    Kind("head-of-government", "Government>Executive branch>head of government", person,
         "Who is the head of government of {c}?|Who leads the government of {c}?|Who heads {cs} "
         "government?|Name {cs} head of government."),
    Kind("next-election", "Government>Executive branch>expected date of next election", whole_list,
         "When is the next presidential or executive election expected in {c}?|When will {c} next elect "
         "its executive?|What is the expected date of the next election for {cs} executive?"),
    Kind("legislature", "Government>Legislative branch>legislature name", first_clause,
         "What is the legislature of {c} called?|What is the name of {cs} parliament?|Which body makes "
         "the laws in {c}?|How is {cs} legislature named?"),
    Kind("chambers", "Government>Legislative branch>legislative structure", first_clause,
         "Is the legislature of {c} unicameral or bicameral?|What structure does {cs} legislature have?|"
         "Does {c} have a unicameral or a bicameral parliament?"),
    Kind("seats", "Government>Legislative branch>number of seats", number,
         "How many seats does {cs} legislature have?|How many members sit in the parliament of {c}?|What "
         "is the number of seats in the legislature of {c}?"),
    Kind("legislature-term", "Government>Legislative branch>term in office", years,
         "How long do members of {cs} parliament serve?|What is the term of office in the legislature of "
         "{c}?|For how many years is {cs} legislature elected?"),
    Kind("lower-chamber", "Government>Legislative branch - lower chamber>chamber name", first_clause,
         "What is the lower chamber of {cs} parliament called?|What is the name of the lower house in "
         "{c}?|Name the lower house of {cs} legislature."),
    Kind("upper-chamber", "Government>Legislative branch - upper chamber>chamber name", first_clause,
         "What is the upper chamber of {cs} parliament called?|What is the name of the upper house in "
         "{c}?|Name the upper house of {cs} legislature."),
    Kind("lower-seats", "Government>Legislative branch - lower chamber>number of seats", number,
         "How many seats does the lower chamber of {cs} parliament have?|How many members has {cs} lower "
         "house?|In {c}, how many seats are there in the lower house?"),
    Kind("upper-seats", "Government>Legislative branch - upper chamber>number of seats", number,
         "How many seats does the upper chamber of {cs} parliament have?|How many members has {cs} upper "
         "house?|In {c}, how many seats are there in the upper house?"),
    Kind("lower-women",
         "Government>Legislative branch - lower chamber>percentage of women in chamber", number,
         "What percentage of {cs} lower house are women?|What percentage of the members of the lower "
         "chamber in {c} are women?|What is the share of women in the lower house of {c}?"),
    Kind("highest-court", "Government>Judicial branch>highest court(s)", first_name,
         "What is the highest court of {c}?|Which court is the highest in {c}?|What is {cs} top court "
         "called?"),
    Kind("divisions", "Government>Administrative divisions", division_count,
         "How many {entry} does {c} have?|Into how many {entry} is {c} divided?|What is the number of "
         "{entry} in {c}?"),
    Kind("symbol", "Government>National symbol(s)", first_item,
         "What is a national symbol of {c}?|Which national symbol does {c} have?|What symbolizes {c}?|"
         "Name {cs} national symbol."),
    Kind("colors", "Government>National color(s)", whole_list,
         "What are the national colors of {c}?|Which colors stand for {c}?|What are {cs} national colors?"),
    Kind("anthem", "Government>National anthem(s)>title", quoted_title,
         "What is the national anthem of {c}?|What is {cs} national anthem called?|Which song is the "
         "anthem of {c}?|What is the title of {cs} national anthem?"),
    Kind("anthem-author", "Government>National anthem(s)>lyrics/music", first_clause,
         "Who wrote the national anthem of {c}?|Who wrote the words and music of {cs} anthem?|Who created "
         "{cs} national anthem?"),
    Kind("flag-bands", "Government>Flag#description", band_count,
         "How many bands does the flag of {c} have?|How many bands are there on {cs} flag?|The flag of "
         "{c} is made of how many bands?"),
    Kind("flag-direction", "Government>Flag#description", band_direction,
         "Are the bands of {cs} flag horizontal or vertical?|In which direction do the bands of {cs} flag "
         "run?|Does the flag of {c} have vertical or horizontal bands?"),
    Kind("flag-meaning", "Government>Flag#meaning", symbol_meaning,
         "On the flag of {c}, what is meant by {entry}?|In {cs} flag, what does {entry} stand for?|What "
         "is the meaning of {entry} in the flag of {c}?|What does {entry} symbolize on {cs} flag?"),
    Kind("heritage-count", "Government>National heritage>total World Heritage Sites", number,
         "How many World Heritage Sites are there in {c}?|How many World Heritage Sites does {c} have?|"
         "What is the number of {cs} World Heritage Sites?"),
    Kind("heritage-site", "Government>National heritage>selected World Heritage Site locales", first_clause,
         "Name a World Heritage Site in {c}.|Which World Heritage Site can be visited in {c}?|What is a "
         "World Heritage Site of {c}?"),
    Kind("us-embassy", "Government>Diplomatic representation from the US>embassy", whole_list,
         "What is the address of the US embassy in {c}?|Where is the US embassy in {c}?|At which address "
         "is the American embassy in {c}?"),
    Kind("ambassador-to-us", "Government>Diplomatic representation in the US>chief of mission", person,
         "Who is {cs} ambassador to the United States?|Who represents {c} in the US?|Who is chief of "
         "mission of {cs} embassy in the US?"),
    # --- Geography ---
    Kind("region", "Geography>Location", region,
         "In which part of the world is {c}?|Where is {c} located?|In which region does {c} lie?|Where in "
         "the world would you find {c}?"),
    Kind("between", "Geography>Location", between,
         "Between which two places does {c} lie?|{c} is located between which neighbors?|Between what is "
         "{c} situated?"),
    Kind("coordinates", "Geography>Geographic coordinates", first_clause,
         "What are the geographic coordinates of {c}?|At which latitude and longitude is {c}?|What are "
         "{cs} coordinates?"),
    Kind("area", "Geography>Area>total", quantity,
         "What is the total area of {c}?|How large is {c}?|What is the size of {c} in square kilometers?|"
         "How big is {cs} territory?|How many square kilometers does {c} cover?"),
    Kind("land-area", "Geography>Area>land", quantity,
         "What is the land area of {c}?|How much land does {c} have?|How much of {cs} area is land?"),
    Kind("comparative-area", "Geography>Area - comparative", first_clause,
         "How does the area of {c} compare with that of other places?|What is {c} comparable to in size?|"
         "Compared with other places, how big is {c}?"),
    Kind("land-boundary", "Geography>Land boundaries>total", quantity,
         "How long are the land boundaries of {c}?|What is the total length of {cs} land borders?|How "
         "many kilometers of land borders does {c} have?"),
    Kind("longest-border", "Geography>Land boundaries>border countries", longest_border,
         "With which country does {c} share its longest border?|Which neighbor has the longest border "
         "with {c}?|What country shares the longest land boundary with {c}?"),
    Kind("border-length", "Geography>Land boundaries>border countries", border_length,
         "How long is the border between {c} and {entry}?|How long is {cs} border with {entry}?|What is "
         "the length of the boundary that {c} shares with {entry}?"),
    Kind("only-neighbour", "Geography>Land boundaries>border countries", only_neighbour,
         "Which country borders {c}?|What is {cs} only neighbor on land?|With whom does {c} share a land "
         "border?"),
    Kind("coastline", "Geography>Coastline", quantity,
         "How long is the coastline of {c}?|What is the length of {cs} coast?|How many kilometers of "
         "coastline does {c} have?"),
    Kind("climate", "Geography>Climate", first_clause,
         "What is the climate of {c} like?|What kind of climate does {c} have?|What climate prevails in "
         "{c}?|How would you describe {cs} climate?"),
    Kind("terrain", "Geography>Terrain", first_clause,
         "What is the terrain of {c} like?|What does the landscape of {c} look like?|What kind of terrain "
         "does {c} have?"),
    Kind("highest-point", "Geography>Elevation>highest point", place_name,
         "What is the highest point in {c}?|Which mountain or place is the highest in {c}?|What is the "
         "name of {cs} highest point?|Where is the highest elevation of {c}?"),
    Kind("highest-elevation", "Geography>Elevation>highest point", place_height,
         "How high is {entry}, the highest point of {c}?|What is the elevation of {cs} highest point?|How "
         "high is the highest point in {c}?"),
    Kind("lowest-point", "Geography>Elevation>lowest point", place_name,
         "What is the lowest point in {c}?|Where is the lowest point of {c}?|What is {cs} lowest point?"),
    Kind("mean-elevation", "Geography>Elevation>mean elevation", quantity,
         "What is the mean elevation of {c}?|How high above sea level does {c} lie on average?|What is "
         "{cs} average elevation?"),
    Kind("resource", "Geography>Natural resources", first_item,
         "What is a natural resource of {c}?|Which natural resource is listed first for {c}?|What natural "
         "resource does {c} have?"),
    Kind("arable", "Geography>Land use>agricultural land", number,
         "How much of {cs} land is agricultural?|What share of the land in {c} is used for agriculture?|"
         "What percentage of {c} is agricultural land?"),
    Kind("forest", "Geography>Land use>forest", number,
         "How much of {c} is covered by forest?|What percentage of {cs} land is forest?|What is the share "
         "of forest in {cs} land?"),
    Kind("lake", "Geography>Major lakes (area sq km)>fresh water lake(s)", river_or_lake,
         "Which major freshwater lake is in {c}?|What is the largest freshwater lake of {c}?|Name a major "
         "freshwater lake in {c}."),
    Kind("river", "Geography>Major rivers (by length in km)", river_or_lake,
         "What is the longest river in {c}?|Which major river flows through {c}?|Name the longest river "
         "of {c}."),
    Kind("river-length", "Geography>Major rivers (by length in km)", river_length,
         "How long is the river {entry}, which flows in {c}?|What is the length of the {entry} in {c}?|In "
         "{c}, how long is the {entry}?"),
    Kind("hazard", "Geography>Natural hazards", hazard,
         "Which natural hazard threatens {c}?|What is a natural hazard in {c}?|What natural hazards does "
         "{c} face?"),
    Kind("irrigated", "Geography>Irrigated land", quantity,
         "How much land is irrigated in {c}?|What is the area of irrigated land in {c}?|How large is {cs} "
         "irrigated land?"),
    # --- People and Society ---
    Kind("population", "People and Society>Population>total", number,
         "What is the population of {c}?|How many people live in {c}?|How many inhabitants does {c} have?|"
         "What is the number of inhabitants of {c}?"),
    Kind("nationality", "People and Society>Nationality>adjective", first_item,
         "What is the adjective for {c}?|Which adjective describes someone from {c}?|What do you call "
         "something that comes from {c}?"),
    Kind("largest-ethnic-group", "People and Society>Ethnic groups", first_share,
         "What is the largest ethnic group in {c}?|Which ethnic group is the biggest in {c}?|To which "
         "ethnic group do most people in {c} belong?"),
    Kind("ethnic-share", "People and Society>Ethnic groups", share_of_second,
         "What percentage of {cs} population is {entry}?|What is the share of {entry} among the ethnic "
         "groups of {c}?|How large is the {entry} ethnic group in {c}?"),
    Kind("official-language", "People and Society>Languages>Languages", official_language,
         "What is the official language of {c}?|Which language is official in {c}?|What official language "
         "does {c} have?|Which official language do people speak in {c}?"),
    Kind("official-language", "People and Society>Languages", official_language,
         "What is the official language of {c}?|Which language is official in {c}?|What official language "
         "does {c} have?"),
    Kind("second-language", "People and Society>Languages>Languages", second_language,
         "Besides {entry}, which language is official in {c}?|Which official language does {c} have "
         "besides {entry}?|{entry} is one official language of {c}; what is the other?"),
    Kind("largest-religion", "People and Society>Religions", first_share,
         "What is the largest religion in {c}?|Which religious group is the biggest in {c}?|What religion "
         "do most people in {c} have?|To which religion do most inhabitants of {c} belong?"),
    Kind("religion-share", "People and Society>Religions", share_of_second,
         "What percentage of people in {c} are {entry}?|What is the share of {entry} in {cs} population?|"
         "What percentage of {cs} population belong to the group {entry}?"),
    Kind("median-age", "People and Society>Median age>total", years,
         "What is the median age in {c}?|How old is the population of {c} at the median?|What is the "
         "median age of people in {c}?"),
    Kind("growth-rate", "People and Society>Population growth rate", number,
         "How fast does the population of {c} grow?|What is the population growth rate of {c}?|At what "
         "rate is {cs} population growing?"),
    Kind("birth-rate", "People and Society>Birth rate", number,
         "What is the birth rate in {c}?|How many births are there per 1,000 people in {c}?|How high is "
         "{cs} birth rate?"),
    Kind("urban", "People and Society>Urbanization>urban population", number,
         "What percentage of people in {c} live in cities?|How urbanized is {c}?|What share of {cs} "
         "population is urban?"),
    Kind("largest-city", "People and Society>Major urban areas - population", largest_city,
         "What is the largest city in {c}?|Which city in {c} has the most inhabitants?|What is {cs} "
         "biggest urban area?"),
    Kind("city-population", "People and Society>Major urban areas - population", city_population,
         "How many people live in {entry}, {c}?|What is the population of {entry} in {c}?|How many "
         "inhabitants does the city of {entry} in {c} have?"),
    Kind("mother-age", "People and Society>Mother's mean age at first birth", years,
         "How old are mothers in {c} on average at their first birth?|What is the mean age of mothers at "
         "first birth in {c}?|At what age do women in {c} have their first child?"),
    Kind("infant-mortality", "People and Society>Infant mortality rate>total", number,
         "What is the infant mortality rate in {c}?|How high is infant mortality in {c}?|How many infants "
         "die per 1,000 live births in {c}?"),
    Kind("life-expectancy", "People and Society>Life expectancy at birth>total population", years,
         "What is the life expectancy in {c}?|How long do people in {c} live on average?|How high is life "
         "expectancy at birth in {c}?|How old do people get in {c}?"),
    Kind("life-expectancy-women", "People and Society>Life expectancy at birth>female", years,
         "What is the life expectancy of women in {c}?|How long do women live in {c}?|How old do women in "
         "{c} get on average?"),
    Kind("fertility", "People and Society>Total fertility rate", number,
         "How many children does a woman in {c} have on average?|What is the total fertility rate of {c}?|"
         "How high is {cs} fertility rate?"),
    Kind("physicians", "People and Society>Physician density", number,
         "How many physicians are there per 1,000 people in {c}?|What is the physician density in {c}?|"
         "How many doctors does {c} have for every 1,000 inhabitants?"),
    Kind("obesity", "People and Society>Obesity - adult prevalence rate", number,
         "What percentage of adults in {c} are obese?|How common is obesity among adults in {c}?|What is "
         "the adult obesity rate of {c}?"),
    Kind("literacy", "People and Society>Literacy>total population", number,
         "What is the literacy rate in {c}?|What percentage of people in {c} can read and write?|How high "
         "is literacy in {c}?"),
    # --- Economy ---
    Kind("currency", "Economy>Exchange rates>Currency", currency,
         "What is the currency of {c}?|Which currency is used in {c}?|What money do people use in {c}?|"
         "With what currency does one pay in {c}?|What is {cs} currency called?"),
    Kind("currency-code", "Economy>Exchange rates>Currency", currency_code,
         "What is the code of {cs} currency?|Which three-letter code does the currency of {c} have?|How "
         "is the currency of {c} abbreviated?"),
    Kind("exchange-rate", "Economy>Exchange rates>Exchange rates 2024", number,
         "What was the exchange rate of {cs} currency to the US dollar in 2024?|How many units of {cs} "
         "currency was one US dollar worth in 2024?|In 2024, what was a US dollar worth in the money of "
         "{c}?"),
    Kind("gdp", "Economy>Real GDP (purchasing power parity)>Real GDP (purchasing power parity) 2024", number,
         "What was the real GDP of {c} in 2024?|How large was {cs} economy in 2024 at purchasing power "
         "parity?|What was {cs} GDP at purchasing power parity in 2024?"),
    Kind("gdp-per-capita", "Economy>Real GDP per capita>Real GDP per capita 2024", number,
         "What was the GDP per capita of {c} in 2024?|How high was {cs} GDP per person in 2024?|What was "
         "real GDP per head in {c} in 2024?"),
    Kind("gdp-growth", "Economy>Real GDP growth rate>Real GDP growth rate 2023", number,
         "By how much did the GDP of {c} grow in 2023?|What was {cs} real GDP growth rate in 2023?|How "
         "fast did the economy of {c} grow in 2023?"),
    Kind("inflation",
         "Economy>Inflation rate (consumer prices)>Inflation rate (consumer prices) 2023", number,
         "What was the inflation rate in {c} in 2023?|How high was inflation in {c} in 2023?|By what "
         "percentage did consumer prices rise in {c} in 2023?"),
    Kind("unemployment", "Economy>Unemployment rate>Unemployment rate 2024", number,
         "What was the unemployment rate in {c} in 2024?|How high was unemployment in {c} in 2024?|What "
         "share of {cs} labor force was out of work in 2024?"),
    Kind("labor-force", "Economy>Labor force", number,
         "How large is the labor force of {c}?|How many people work or look for work in {c}?|What is the "
         "size of {cs} labor force?"),
    Kind("poverty", "Economy>Population below poverty line", number,
         "What percentage of people in {c} live below the poverty line?|What share of {cs} population is "
         "poor?|What share of the population of {c} is below the poverty line?"),
    Kind("public-debt", "Economy>Public debt>Public debt*", dollars_or_percent,
         "How high is the public debt of {c}?|What is {cs} public debt as a share of GDP?|How much public "
         "debt does {c} have?"),
    Kind("industry", "Economy>Industries", first_item,
         "What is a major industry in {c}?|Which industry is listed first for {c}?|What is one of {cs} "
         "main industries?|Name an important industry of {c}."),
    Kind("crop", "Economy>Agricultural products", first_item,
         "What is {cs} top agricultural product?|Which agricultural product comes first in {c}?|What is "
         "the main product of farming in {c}?"),
    Kind("export-partner", "Economy>Exports - partners", first_share,
         "Which country is {cs} most important export partner?|Where do most exports of {c} go?|To which "
         "country does {c} export the most?|Who buys most of {cs} exports?"),
    Kind("import-partner", "Economy>Imports - partners", first_share,
         "Which country is {cs} most important import partner?|Where do most imports of {c} come from?|"
         "From which country does {c} import the most?"),
    Kind("partner-share", "Economy>Exports - partners", share_of_second,
         "What share of {cs} exports goes to {entry}?|What percentage of {cs} exports go to {entry}?|What "
         "percentage of its exports does {c} send to {entry}?"),
    Kind("export", "Economy>Exports - commodities", first_item,
         "What is the main export of {c}?|Which commodity does {c} export the most?|What is {cs} top "
         "export commodity?|What does {c} mainly export?"),
    Kind("import", "Economy>Imports - commodities", first_item,
         "What is the main import of {c}?|Which commodity does {c} import the most?|What is {cs} top "
         "import commodity?"),
    # --- Energy, Communications, Transportation ---
    Kind("electrified", "Energy>Electricity access>electrification - total population", number,
         "What percentage of people in {c} have electricity?|What percentage of {cs} population have "
         "access to electricity?|What is the electrification rate of {c}?"),
    Kind("hydropower", "Energy>Electricity generation sources>hydroelectricity", number,
         "What share of {cs} electricity comes from hydropower?|How much of the electricity of {c} is "
         "hydroelectric?|What percentage of electricity in {c} is generated by water power?"),
    Kind("fossil", "Energy>Electricity generation sources>fossil fuels", number,
         "What share of {cs} electricity comes from fossil fuels?|How much of {cs} electricity is made "
         "with fossil fuels?|What percentage of the electricity of {c} is generated from fossil fuels?"),
    Kind("reactors", "Energy>Nuclear energy>Number of operational nuclear reactors", number,
         "How many nuclear reactors does {c} operate?|How many operational nuclear reactors are there in "
         "{c}?|What is the number of working nuclear reactors in {c}?"),
    Kind("internet-code", "Communications>Internet country code", domain,
         "What is the internet country code of {c}?|What is the top-level domain of {c}?|Which internet "
         "domain belongs to {c}?|With what do web addresses in {c} end?"),
    Kind("internet-users", "Communications>Internet users>percent of population", number,
         "What percentage of people in {c} use the internet?|What percentage of {cs} population are "
         "internet users?|How widespread is internet use in {c}?"),
    Kind("mobile-phones", "Communications>Telephones - mobile cellular>total subscriptions", number,
         "How many mobile phone subscriptions are there in {c}?|How many cell phone subscriptions does "
         "{c} have?|What is the number of mobile telephone subscriptions in {c}?"),
    Kind("fixed-lines", "Communications>Telephones - fixed lines>total subscriptions", number,
         "How many fixed telephone lines are there in {c}?|How many fixed-line telephones does {c} have?|"
         "What is the number of fixed telephone subscriptions in {c}?"),
    Kind("aircraft-prefix", "Transportation>Civil aircraft registration country code prefix", first_item,
         "What is the civil aircraft registration prefix of {c}?|With which prefix are civil aircraft of "
         "{c} registered?|What code do civil aircraft from {c} carry?"),
    Kind("airports", "Transportation>Airports", number,
         "How many airports are there in {c}?|How many airports does {c} have?|What is the number of {cs} "
         "airports?"),
    Kind("heliports", "Transportation>Heliports", number,
         "How many heliports are there in {c}?|How many heliports does {c} have?|What is the number of "
         "heliports in {c}?"),
    Kind("railways", "Transportation>Railways>total", quantity,
         "How long is the railway network of {c}?|How many kilometers of railways does {c} have?|What is "
         "the total length of {cs} railways?"),
    Kind("merchant-marine", "Transportation>Merchant marine>total", number,
         "How many ships does the merchant marine of {c} have?|How large is {cs} merchant fleet?|How many "
         "merchant ships sail for {c}?"),
    Kind("ports", "Transportation>Ports>total ports", number,
         "How many ports does {c} have?|How many ports are there in {c}?|What is the total number of {cs} "
         "ports?"),
    Kind("key-port", "Transportation>Ports>key ports", first_item,
         "What is a key port of {c}?|Name an important port in {c}.|Which port is important for {c}?"),
    # --- Environment, Military, Space, Transnational ---
    Kind("carbon", "Environment>Carbon dioxide emissions>total emissions", number,
         "How many metric tonnes of CO2 does {c} emit?|How high are the carbon dioxide emissions of {c}?|"
         "What are {cs} total emissions of carbon dioxide?"),
    Kind("issue", "Environment>Environmental issues", first_item,
         "What is an environmental problem in {c}?|Which environmental issue does {c} face?|Name an "
         "environmental issue in {c}."),
    Kind("geopark", "Environment>Geoparks>global geoparks and regional networks", first_clause,
         "Name a geopark in {c}.|Which global geopark is in {c}?|What is one of {cs} geoparks?"),
    Kind("forces", "Military and Security>Military and security forces", force_name,
         "What are the armed forces of {c} called?|What is the name of {cs} military?|Who defends {c}?"),
    Kind("military-spending",
         "Military and Security>Military expenditures>Military Expenditures*", dollars_or_percent,
         "What share of GDP does {c} spend on its military?|How high are {cs} military expenditures?|How "
         "much of its GDP does {c} spend on defense?"),
    Kind("service-age", "Military and Security>Military service age and obligation", service_age,
         "At what age can one volunteer for military service in {c}?|What is the age for voluntary "
         "military service in {c}?|How old must volunteers for {cs} military be?"),
    Kind("conscription", "Military and Security>Military service age and obligation", conscription,
         "Is there conscription in {c}?|Does {c} have compulsory military service?|Are people in {c} "
         "drafted into the military?"),
    Kind("space-agency", "Space>Space agency/agencies", first_clause,
         "What is the space agency of {c} called?|Which agency runs {cs} space program?|What is the name "
         "of {cs} space agency?"),
    Kind("refugees", "Transnational Issues>Refugees and internally displaced persons>refugees", number,
         "How many refugees are there in {c}?|How many refugees does {c} host?|What is the number of "
         "refugees in {c}?"),
)  # fmt: skip


def text_at(country: dict[str, Any], path: str) -> str:
    """Returns the text at a path as the documents write it; empty if there is none.

    Args:
        country: A country's data.
        path: As in `Kind`.
    """
    path, _, label = path.partition("#")
    section, field, *rest = path.split(">")
    value = country.get(section, {}).get(field, {})
    if rest:
        name = rest[0]
        same = str.startswith if name.endswith("*") else str.__eq__
        value = next((part for key, part in value.items() if same(key.strip(), name.rstrip("*"))), {})
    if not isinstance(value, dict) or not isinstance(value.get("text"), str):
        return ""
    pieces = field_pieces(field, {"text": value["text"]})
    return next((text for found, text in pieces if not label or found == label), "")


def split_of(name: str) -> str:
    """Returns the split that a country belongs to: by a hash of its name, about 80 : 10 : 10.

    Args:
        name: The country's name.
    """
    if name in TEST_COUNTRIES:
        return "test"
    bucket = int.from_bytes(hashlib.sha256(f"split:{slug(name)}".encode()).digest()[:4], "big") % 100
    return "train" if bucket < 82 else "dev" if bucket < 93 else "test"


def _is_answer(answer: str, text: str, context: str) -> bool:
    """Tells whether an answer is short, says something, and stands in the document as words of their own."""
    if (
        not answer
        or len(answer.split()) > MAX_ANSWER_WORDS
        or answer.lower() in ("none", "unknown", "na", "see")
    ):
        return False
    if answer.count("(") != answer.count(")") or answer.count('"') % 2:
        return False
    inside = re.compile(rf"(?<!\w){re.escape(answer)}(?!\w)")
    if not context:
        return inside.search(text) is not None
    return any(context in line and inside.search(line) for line in re.split(r"\n|(?<=[a-z]\.) ", text))


def _possessive(name: str) -> str:
    return name + ("'" if name.endswith("s") else "'s")


def _ask(wording: str, words: dict[str, str]) -> str:
    question = wording.format(**words)
    return question[0].upper() + question[1:]


def country_questions(
    code: str, country: dict[str, Any], kinds: Iterable[Kind] = KINDS
) -> Iterator[Question]:
    """Makes at most one question of each kind about a country.

    Args:
        code: Two-letter code of the Factbook.
        country: The country's data.
        kinds: The kinds of facts to ask about.

    Yields:
        Questions with ``id``, ``question``, ``answers`` and ``passage`` (the id of the gold document).
    """
    name = country_name(code, country)
    short = with_article(re.sub(r" \([^()]*\)$", "", name))
    texts = {document["id"]: document["text"] for document in country_documents(code, country)}
    asked: set[str] = set()
    for kind in kinds:
        rng = random.Random(f"{slug(name)}/{kind.name}")  # noqa: S311 - only picks wordings
        passage = f"{slug(name)}/{slug(kind.section or kind.path.split('>')[0])}"
        found = kind.read(text_at(country, kind.path)) if kind.name not in asked and passage in texts else []
        found = [
            item
            for item in found
            if item.answers[0] not in (name, short)
            and _is_answer(item.answers[0], texts[passage], kind.context)
        ]
        if not found:
            continue
        asked.add(kind.name)
        fact = rng.choice(found)
        words = {"c": short, "cs": _possessive(short), **fact.words}
        yield {
            "id": f"{slug(name)}/{kind.name}",
            "question": _ask(rng.choice(kind.wordings.split("|")), words),
            "answers": fact.answers,
            "passage": passage,
        }


def all_questions(countries: dict[str, dict[str, Any]], per_country: int) -> dict[str, list[Question]]:
    """Makes the questions of every split.

    Args:
        countries: The Factbook's data by code.
        per_country: At most so many questions about a country, chosen at random but always the same.

    Returns:
        The questions of each split, shuffled.
    """
    splits: dict[str, list[Question]] = {split: [] for split in SPLITS}
    for code, country in countries.items():
        name = country_name(code, country)
        if name in LEFT_OUT:
            continue
        questions = list(country_questions(code, country))
        random.Random(f"{name} sample").shuffle(questions)  # noqa: S311
        splits[split_of(name)] += questions[:per_country]
    for split, questions in splits.items():
        random.Random(split).shuffle(questions)  # noqa: S311
    return splits


def write_splits(splits: dict[str, list[Question]], folder: Path) -> None:
    """Writes each split as JSON lines.

    Args:
        splits: Questions by split.
        folder: Where ``train.jsonl``, ``dev.jsonl`` and ``test.jsonl`` go.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for split, questions in splits.items():
        lines = [json.dumps(question, ensure_ascii=False) + "\n" for question in questions]
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")


def main() -> None:
    """Writes the three files and says how many questions of each kind there are."""
    parser = argparse.ArgumentParser(description="Make questions with answers from the CIA World Factbook.")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write to")
    parser.add_argument(
        "--per-country", type=int, default=50, help="questions per country at most (default: 50)"
    )
    arguments = parser.parse_args()
    splits = all_questions(load_countries(), arguments.per_country)
    write_splits(splits, arguments.output)
    counts = Counter(question["id"].split("/")[1] for questions in splits.values() for question in questions)
    print(", ".join(f"{kind} {count}" for kind, count in counts.most_common()))
    print(", ".join(f"{split}: {len(questions)}" for split, questions in splits.items()))


if __name__ == "__main__":
    main()
