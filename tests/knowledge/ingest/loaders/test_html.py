"""Web pages: no words glued, declared encodings kept to, hidden parts left out, nothing fetched."""

from __future__ import annotations

import pytest

from ragweave.errors import SourceError, SourceWarning
from ragweave.types import Document
from tests.support.documents import only_document, read, write


def page(tmp_path, content: str | bytes, name: str = "page.html") -> Document:
    return only_document(write(tmp_path / name, content))


def text_of(tmp_path, body: str) -> str:
    return page(tmp_path, f"<!doctype html><html><body>{body}</body></html>").text


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("<p>Red<p>Blue", "Red\n\nBlue"),
        ("Red<br>Blue", "Red\nBlue"),
        ("<div>Red</div>Blue", "Red\n\nBlue"),
        ("<article>Red</article><aside>Blue</aside>", "Red\n\nBlue"),
        ("<details><summary>Red</summary>Blue</details>", "Red\nBlue"),
        ("<dl><dt>Red<dd>Blue</dl>", "Red\nBlue"),
        ("<select><option>Red<option>Blue</select>", "Red\nBlue"),
        ("<label>Red</label><button>Blue</button>", "Red\n\nBlue"),
        ("<fieldset><legend>Red</legend>Blue</fieldset>", "Red\n\nBlue"),
        ("<label>Red</label><input value=Blue>", "Red\n\nBlue"),
        ("<textarea>Red</textarea>Blue", "Red\n\nBlue"),
        ("<my-card>Red</my-card><my-card>Blue</my-card>", "Red\n\nBlue"),
        ("<a href=r>Red</a><a href=b>Blue</a>", "Red Blue"),
        ("<figure><img src=r.png alt=Red><figcaption>Blue</figcaption></figure>", "Red\n\nBlue"),
        ("<svg><text>Red</text><text>Blue</text></svg>", "Red Blue"),
    ],
)
def test_words_are_never_glued(tmp_path, body, text):
    assert text_of(tmp_path, body) == text


def test_words_stay_whole(tmp_path):
    assert (
        text_of(tmp_path, "<p>C<b>ap</b>ital, H<sub>2</sub>O, co&shy;operate</p>")
        == "Capital, H2O, cooperate"
    )


def test_powers_and_footnotes_stay_apart_from_what_they_follow(tmp_path):
    assert (
        text_of(tmp_path, "<p>10<sup>6</sup> people<sup>2</sup>, 1<sup>st</sup></p>") == "10^6 people^2, 1st"
    )


def test_headings_lists_and_tables(tmp_path):
    body = (
        "<h2>Rivers</h2><ul><li>Rhine<ul><li>Neckar</ul><li>Elbe</ul><ol start=3><li>Oder</ol>"
        "<table><tr><th>river<th>km<tr><td>Rhine<td>1,233</table><pre>a  b\n  c</pre>"
    )
    assert text_of(tmp_path, body).splitlines() == [
        *("## Rivers", "", "- Rhine", "", "  - Neckar", "", "- Elbe", "", "3. Oder", ""),
        *("| river | km |", "| Rhine | 1,233 |", "", "```", "a  b", "  c", "```"),
    ]


def test_text_is_as_written_without_a_converters_escapes(tmp_path):
    body = "<p>snake_case * 2 &lt; #5 [x] \\d 1. &amp;amp;</p>"
    assert text_of(tmp_path, body) == "snake_case * 2 < #5 [x] \\d 1. &amp;"


def test_pictures_leave_their_alternative_text(tmp_path):
    body = f"<p>A <img src='data:image/png;base64,{'iVBOR' * 50}' alt='red roof'> house</p>"
    assert text_of(tmp_path, body) == "A red roof house"


@pytest.mark.parametrize(
    "hidden",
    [
        "<script>no()</script>",
        "<style>no {}</style>",
        "<template>no</template>",
        "<nav>no</nav>",
        "<div role=navigation><p>no</p></div>",
        "<p hidden>no</p>",
        "<p style='color: red; display : none'>no<b>no</b></p>",
        "<span aria-hidden=true>no</span>",
        "<input type=hidden value=no>",
        "<!-- no -->",
    ],
)
def test_what_is_hidden_is_left_out(tmp_path, hidden):
    assert text_of(tmp_path, f"<p>Red</p>{hidden}<p>Blue</p>") == "Red\n\nBlue"


def test_a_page_that_scripts_show_later_is_read(tmp_path):
    assert page(tmp_path, "<html hidden><body style='visibility:hidden'><p>Red</p>").text == "Red"


@pytest.mark.parametrize(
    ("content", "title"),
    [
        ("<title> About\n Peru </title><h1>Lima</h1>", "About Peru"),
        ("<h1>Lima &amp; Cusco</h1>", "Lima & Cusco"),
        ("<svg><title>Icon</title></svg><h1>Lima</h1>", "Lima"),
        ("<p>Lima</p>", "Old notes"),
    ],
)
def test_titles(tmp_path, content, title):
    assert page(tmp_path, content, "old_notes.htm").title == title


def test_one_bad_byte_costs_one_character(tmp_path):
    content = "<meta charset=utf-8><p>Señor Müller ".encode() + b"\x96" + " naïve café</p>".encode()
    with pytest.warns(SourceWarning, match=r"page.html: it has bytes that are not utf-8 \(1\)"):
        assert page(tmp_path, content).text == "Señor Müller \ufffd naïve café"


@pytest.mark.parametrize(
    ("declaration", "encoding", "text"),
    [
        ("<meta charset=windows-1251>", "cp1251", "Москва"),
        ("<meta charset='iso-8859-1'>", "cp1252", "Müller: “café” 5 €"),
        ("<meta http-equiv=Content-Type content='text/html; charset=Shift_JIS'>", "cp932", "東京都"),
        ("<?xml version='1.0' encoding='iso-8859-2'?>", "iso-8859-2", "Łódź"),
        ("<meta charset=iso-8859-1>", "utf-8-sig", "Łódź"),
        ("", "utf-16", "Łódź"),
        ("", "utf-8", "Łódź"),
        ("", "cp1252", "Müller und die Bäche"),
        ("<meta charset=no-such-encoding>", "utf-8", "Łódź"),
    ],
)
def test_declared_encodings_hold(tmp_path, declaration, encoding, text, recwarn):
    assert page(tmp_path, f"{declaration}<p>{text}</p>".encode(encoding)).text == text
    assert not recwarn.list


@pytest.mark.parametrize(
    "content", [b"%PDF-1.4\x00\xff\xfe", b"PK\x03\x04" + b"\x07" * 50, b"\x00\x01\x02" * 99]
)
def test_bytes_that_are_no_page_are_refused(tmp_path, content):
    with pytest.raises(SourceError, match="it is not a web page"):
        read(write(tmp_path / "a.html", content))


def test_a_missing_page(tmp_path):
    (tmp_path / "a.html").symlink_to(tmp_path / "missing.html")
    with pytest.raises(SourceError, match="cannot be read"):
        read(tmp_path)


def test_xhtml(tmp_path):
    content = (
        '<?xml version="1.0" encoding="utf-8"?><!DOCTYPE h:html [<!ENTITY city "Lima">]>'
        '<h:html xmlns:h="http://www.w3.org/1999/xhtml"><h:head><h:title>Peru</h:title><h:script/></h:head><h:body>'
        "<h:p>One<h:br/>two</h:p><h:p><![CDATA[3 < 4 & <b>]]> five</h:p></h:body></h:html>"
    )
    document = page(tmp_path, content, "page.xhtml")
    assert (document.title, document.text) == ("Peru", "One\ntwo\n\n3 < 4 & <b> five")


def test_a_section_without_an_end_keeps_the_text(tmp_path):
    assert (
        "Cusco" in page(tmp_path, '<?xml version="1.0"?><p>Lima</p><![CDATA[ > <p>Cusco</p>', "a.xhtml").text
    )


def test_entities_are_neither_expanded_nor_fetched(tmp_path):
    secret = write(tmp_path / "secret.txt", "swordfish")
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    content = (
        f'<?xml version="1.0"?><!DOCTYPE html SYSTEM "{secret.as_uri()}" [<!ENTITY e0 "lol">{entities}'
        f'<!ENTITY secret SYSTEM "{secret.as_uri()}">]>'
        '<html title="&e11;"><body><p>A &e11; &secret; &eacute;</p></body></html>'
    )
    assert page(tmp_path, content, "page.xhtml").text == "A &e11; &secret; é"


@pytest.mark.parametrize("tag", ["div", "b", "table", "ul", "svg", "td"])
def test_deep_nesting_keeps_the_text(tmp_path, tag):
    assert "Lima" in text_of(tmp_path, f"<{tag}>" * 20_000 + "Lima")


def test_nested_tables_that_lay_out_a_page(tmp_path):
    assert (
        text_of(tmp_path, "<table><tr><td>" * 2000 + "Lima" + "</td></tr></table>" * 2000 + "Cusco")
        == "Lima\n\nCusco"
    )


@pytest.mark.parametrize(
    "body", ["</td></table></ul></h1>Lima", "Lima<b", "<td></ul><li>Lima</td></td>", "<p>Lima<![CDATA["]
)
def test_damaged_markup_keeps_the_text(tmp_path, body):
    assert text_of(tmp_path, body).removeprefix("- ").startswith("Lima")


def test_a_line_of_many_megabytes(tmp_path):
    text = text_of(tmp_path, f"<p title='{'x' * 12_000_000}'>{'Lima ' * 2_400_000}</p><p>Cusco</p>")
    assert (text.count("Lima"), text[-7:]) == (2_400_000, "\n\nCusco")
