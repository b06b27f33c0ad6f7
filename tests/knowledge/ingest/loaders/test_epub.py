"""EPUB books: chapters in the order of reading, each once; what is lost is named; no file harms the process."""

from __future__ import annotations

import zipfile

import pytest

from ragweave.errors import SourceError, SourceWarning
from tests.support.documents import only_document, read, write, write_zip

CONTAINER = (
    '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
    '<rootfile full-path="OPS/content.opf"/></rootfiles></container>'
)


def chapter(text: str) -> str:
    return f'<html xmlns="http://www.w3.org/1999/xhtml"><body><p>{text}</p></body></html>'


def listing(
    *chapters: str, spine: tuple[str, ...] | None = None, title: str = "A book", prolog: str = ""
) -> str:
    items = "".join(
        f'<item id="{name}" href="{name}" media-type="application/xhtml+xml"/>' for name in chapters
    )
    order = "".join(f'<itemref idref="{name}"/>' for name in (chapters if spine is None else spine))
    return (
        f'{prolog}<package xmlns="http://www.idpf.org/2007/opf"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/">'
        f"<dc:title>{title}</dc:title></metadata><manifest>{items}</manifest><spine>{order}</spine></package>"
    )


def book(path, opf: str, files: dict[str, str] | None = None):
    return write_zip(path, {"META-INF/container.xml": CONTAINER, "OPS/content.opf": opf, **(files or {})})


def test_chapters_in_the_order_of_reading_each_once(tmp_path):
    names = ("a.xhtml", "b%20two.xhtml", "../c.html")
    opf = listing(
        *names, spine=("../c.html", "a.xhtml", "b%20two.xhtml", "a.xhtml"), title="Rivers &amp; seas"
    )
    files = {"OPS/a.xhtml": chapter("Elbe"), "OPS/b two.xhtml": chapter("Oder"), "c.html": chapter("Rhine")}
    document = only_document(book(tmp_path / "book.epub", opf, files))
    assert (document.title, document.text) == ("Rivers & seas", "Rhine\n\nElbe\n\nOder")


def test_a_title_from_the_name(tmp_path):
    path = book(tmp_path / "old_rivers.epub", listing("a.xhtml", title=""), {"OPS/a.xhtml": chapter("Elbe")})
    assert only_document(path).title == "Old rivers"


def test_chapters_with_namespace_prefixes(tmp_path):
    prefixed = (
        '<?xml version="1.0" encoding="utf-8"?><h:html xmlns:h="http://www.w3.org/1999/xhtml"><h:head><h:title>One'
        "</h:title><h:style>p {color: red}</h:style></h:head><h:body><h:h1>One</h:h1><h:p>Oil burns.</h:p>"
        "<h:p>It is lit<h:br/>at dusk.</h:p></h:body></h:html>"
    )
    document = only_document(book(tmp_path / "book.epub", listing("a.xhtml"), {"OPS/a.xhtml": prefixed}))
    assert document.text == "# One\n\nOil burns.\n\nIt is lit\nat dusk."


def test_a_book_without_a_list_of_chapters(tmp_path):
    path = write_zip(
        tmp_path / "book.epub", {"b.xhtml": chapter("Oder"), "a.xhtml": chapter("Elbe"), "c.css": "no"}
    )
    assert only_document(path).text == "Elbe\n\nOder"


def test_missing_chapters_are_named(tmp_path):
    opf = listing("a.xhtml", "gone.xhtml", spine=("a.xhtml", "gone.xhtml", "unlisted"))
    path = book(tmp_path / "book.epub", opf, {"OPS/a.xhtml": chapter("Elbe")})
    with pytest.warns(SourceWarning) as warned:
        assert only_document(path).text == "Elbe"
    assert [str(warning.message) for warning in warned] == [
        "book.epub: its chapter unlisted is not in the list of its parts.",
        "book.epub: its part OPS/gone.xhtml is missing.",
    ]


def test_a_damaged_chapter_is_named(tmp_path):
    path = tmp_path / "book.epub"
    with zipfile.ZipFile(
        path, "w"
    ) as archive:  # stored as it is, so that a changed byte is found by its checksum
        archive.writestr("META-INF/container.xml", CONTAINER)
        archive.writestr("OPS/content.opf", listing("a.xhtml", "b.xhtml"))
        archive.writestr("OPS/a.xhtml", chapter("Elbe"))
        archive.writestr("OPS/b.xhtml", chapter("Oder"))
    path.write_bytes(path.read_bytes().replace(b"Elbe", b"Elba"))
    with pytest.warns(SourceWarning, match=r"OPS/a\.xhtml is damaged"):
        assert only_document(path).text == "Oder"


def test_a_damaged_list_is_named(tmp_path):
    opf = listing("a.xhtml").replace("</spine></package>", "")
    path = book(tmp_path / "book.epub", opf, {"OPS/a.xhtml": chapter("Elbe")})
    with pytest.warns(SourceWarning, match=r"content\.opf is damaged"):
        assert only_document(path).text == "Elbe"


def test_protected_chapters_are_named(tmp_path):
    encryption = '<encryption><CipherData><CipherReference URI="OPS/b.xhtml"/></CipherData></encryption>'
    files = {"OPS/a.xhtml": chapter("Elbe"), "OPS/b.xhtml": "\x01\x02", "META-INF/encryption.xml": encryption}
    path = book(tmp_path / "book.epub", listing("a.xhtml", "b.xhtml"), files)
    with pytest.warns(SourceWarning, match=r"OPS/b\.xhtml is encrypted"):
        assert only_document(path).text == "Elbe"


def test_a_bad_byte_in_a_chapter_costs_one_character(tmp_path):
    path = tmp_path / "book.epub"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            "a.xhtml", '<?xml version="1.0" encoding="utf-8"?><p>Señor '.encode() + b"\x96 caf\xc3\xa9</p>"
        )
    with pytest.warns(SourceWarning, match=r"a\.xhtml has bytes that are not utf-8 \(1\)"):
        assert only_document(path).text == "Señor \ufffd café"


def test_an_archive_without_chapters_is_refused(tmp_path):
    with pytest.raises(SourceError, match="it lists no chapter"):
        read(write_zip(tmp_path / "book.epub", {"readme.txt": "Lima"}))


def hostile_entities(folder):
    """A file that no book may read, and entities that unfold to hundreds of gigabytes or name that file."""
    secret = write(folder / "secret.txt", "swordfish")
    bomb = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    return secret, f'<!ENTITY e0 "lol">{bomb}<!ENTITY secret SYSTEM "{secret.as_uri()}">'


def test_entities_are_neither_expanded_nor_fetched(tmp_path):
    secret, entities = hostile_entities(tmp_path)
    prolog = f'<?xml version="1.0"?><!DOCTYPE package SYSTEM "{secret.as_uri()}" [{entities}]>'
    opf = listing("a.xhtml", title="Lima &secret; &e11;", prolog=prolog)
    files = {"OPS/a.xhtml": f"{prolog}{chapter('Elbe &secret; &e11;')}"}
    with pytest.warns(SourceWarning, match="Entity 'secret' not defined"):
        document = only_document(book(tmp_path / "book.epub", opf, files))
    assert (document.title, document.text) == ("Lima", "Elbe &secret; &e11;")


@pytest.mark.parametrize("quoted", ["]>", "[]>", ">"])
def test_entities_behind_a_misleading_document_type(tmp_path, quoted):
    secret = write(tmp_path / "secret.txt", "swordfish")
    prolog = (
        f'<!DOCTYPE p PUBLIC "{quoted}" "x" [<!ENTITY a "{quoted}"><!ENTITY s SYSTEM "{secret.as_uri()}">]>'
    )
    path = book(
        tmp_path / "book.epub",
        listing("a.xhtml", title="&s;", prolog=prolog),
        {"OPS/a.xhtml": chapter("Elbe")},
    )
    with pytest.warns(SourceWarning, match="damaged"):
        document = only_document(path)
    assert "swordfish" not in document.title + document.text
    assert "Elbe" in document.text


def test_entities_behind_a_bracket_in_quotes(tmp_path):
    _, entities = hostile_entities(tmp_path)
    prolog = f'<!DOCTYPE package [<!ENTITY a "]x">{entities}]>'
    opf = listing("a.xhtml", title="Lima &secret; &e11;", prolog=prolog)
    with pytest.warns(SourceWarning, match="Maximum entity amplification factor exceeded"):
        document = only_document(book(tmp_path / "book.epub", opf, {"OPS/a.xhtml": chapter("Elbe")}))
    assert (document.title, document.text) == ("Lima", "Elbe")


def test_parts_are_read_from_the_archive_alone(tmp_path):
    (tmp_path / "secret.xhtml").write_text(chapter("swordfish"))
    path = book(
        tmp_path / "book.epub",
        listing("../../secret.xhtml", str(tmp_path / "secret.xhtml"), "http://x.test/a"),
    )
    with pytest.warns(SourceWarning, match="is missing"):
        assert not only_document(path).text


def test_an_enormous_chapter_is_named(tmp_path):
    files = {"OPS/a.xhtml": chapter("Elbe"), "OPS/b.xhtml": "0" * (129 * 2**20)}
    path = book(tmp_path / "book.epub", listing("a.xhtml", "b.xhtml"), files)
    with pytest.warns(SourceWarning, match=r"OPS/b\.xhtml has more than 128 MiB"):
        assert only_document(path).text == "Elbe"
