"""Mails and mailboxes: the text as its readers see it, headers, and attachments by the loader of their kind."""

from __future__ import annotations

from email.message import EmailMessage
from pathlib import Path

import pytest

from ragweave.errors import OmissionWarning, SourceError, SourceWarning
from tests.support.documents import only_document, read, write, write_pdf

HEAD = b"From: Ada <ada@example.org>\nTo: Bob <bob@example.org>\nSubject: Lima\n"


def mail(subject: str = "Lima", text: str = "The capital of Peru.") -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "Ada <ada@example.org>", "bob@example.org", subject
    message["Date"] = "Mon, 01 Jan 2024 10:00:00 +0100"
    message.set_content(text)
    return message


def save(path: Path, message: EmailMessage) -> Path:
    return write(path, message.as_bytes())


def test_headers_and_text(tmp_path):
    document = only_document(save(tmp_path / "a.eml", mail("Grüße aus Lima", "Die Stadt ist schön.")))
    assert document.title == "Grüße aus Lima"
    assert document.text.split("\n") == [
        "From: Ada <ada@example.org>",
        "To: bob@example.org",
        "Date: Mon, 01 Jan 2024 10:00:00 +0100",
        "Subject: Grüße aus Lima",
        "",
        "Die Stadt ist schön.",
    ]


def test_plain_text_is_preferred_to_html(tmp_path):
    message = mail()
    message.add_alternative("<p>The <b>capital</b> of Peru.</p><script>x</script>", subtype="html")
    assert only_document(save(tmp_path / "a.eml", message)).text.endswith("\n\nThe capital of Peru.")
    # A plain part that only refers to the other is not the text.
    message = mail(text="See HTML.")
    message.add_alternative("<p>Lima is the capital of Peru,</p><p>on the Rimac.</p>", subtype="html")
    text = only_document(save(tmp_path / "a.eml", message)).text
    assert text.endswith("\n\nLima is the capital of Peru,\n\non the Rimac.")


def test_attachments_are_read_by_the_loader_of_their_kind(tmp_path):
    message = mail()
    pdf = write_pdf(tmp_path / "x.pdf", ["Ulm on the Danube"]).read_bytes()
    message.add_attachment(pdf, maintype="application", subtype="pdf", filename="../../report.pdf")
    message.add_attachment("a,b\nJena,x\n", subtype="csv", filename="t.csv")
    message.add_attachment("second", filename="t.csv")
    message.add_attachment(b"\x89PNG", maintype="image", subtype="png", filename="p.png")
    message.add_attachment(mail("Inner", "Inside."))
    path = save(tmp_path / "a.eml", message)
    with pytest.warns(OmissionWarning, match=r"a\.eml: 1 files in it are ignored: 1 \.png"):
        documents = {document.id: document for document in read(path)}
    names = ["a.eml", "a.eml/report.pdf", "a.eml/t.csv:2", "a.eml/3-t.csv:1", "a.eml/part.eml"]
    assert list(documents) == names
    assert "Attachments: report.pdf, t.csv, 3-t.csv, p.png, part.eml" in documents["a.eml"].text
    assert documents["a.eml/report.pdf"].text == "Ulm on the Danube"
    assert documents["a.eml/part.eml"].title == "Inner"
    assert {document.source for document in documents.values()} == {str(path)}


@pytest.mark.parametrize(
    ("charset", "body", "text", "lost"),
    [
        ("utf-8", "schön".encode(), "schön", False),
        ("iso-8859-1", "“schön”".encode("cp1252"), "“schön”", False),
        ("koi8-r", "Лима".encode("koi8-r"), "Лима", False),
        ("no-such-charset", "schön".encode(), "schön", False),
        ("utf-8", "Größe und Länge, schöne".encode() + b"\xff", "Größe und Länge, schöne\ufffd", True),
    ],
)
@pytest.mark.filterwarnings("error::UserWarning")
def test_encodings(tmp_path, charset, body, text, lost):
    content = HEAD + b"Content-Type: text/plain; charset=%s\n\n%s\n" % (charset.encode(), body)
    path = write(tmp_path / "a.eml", content)
    if lost:
        with pytest.warns(SourceWarning, match="1 bytes of an email are not utf-8"):
            document = only_document(path)
    else:
        document = only_document(path)
    assert document.text.endswith(f"\n\n{text}")


def test_headers_of_no_encoding(tmp_path):
    document = only_document(write(tmp_path / "a.eml", b"Subject: r\xe9sum\xe9\nFrom: =?x?q?=\n\ntext"))
    assert document.text.endswith("\n\ntext")
    assert document.title.startswith("r")


def test_mailbox(tmp_path):
    box = b"".join(
        b"From ada@example.org Mon Jan  1 10:00:00 2024\nSubject: %d\nFrom: a@b.c\n\n>From here, %s.\n\n"
        % (n, name)
        for n, name in enumerate((b"Lima", b"Ulm"))
    )
    documents = read(write(tmp_path / "a.mbox", box))
    assert [(d.id, d.title) for d in documents] == [("a.mbox:1", "0"), ("a.mbox:2", "1")]
    assert documents[0].text.endswith("\n\nFrom here, Lima.")


def test_a_mailbox_keeps_its_mails_when_one_is_none(tmp_path):
    box = b"From a\nSubject: Lima\n\ntext\n\nFrom b\n\nno mail\n\nFrom c\nSubject: Ulm\n\ntext\n"
    with pytest.warns(SourceWarning, match=r"a\.mbox:2 is not an email"):
        assert [d.title for d in read(write(tmp_path / "a.mbox", box))] == ["Lima", "Ulm"]


@pytest.mark.parametrize("name", ["a.eml", "a.mbox"])
@pytest.mark.parametrize("content", [b"", b"just text\n", b"\0" * 100])
def test_what_is_no_mail(tmp_path, name, content):
    with pytest.raises(SourceError, match=r"contains no email|is not an email"):
        read(write(tmp_path / name, content))


def nested(depth: int) -> bytes:
    head = b"".join(b'Content-Type: multipart/mixed; boundary="%d"\n\n--%d\n' % (n, n) for n in range(depth))
    return HEAD + head + b"\ndeep text\n"


def test_ten_thousand_nested_parts(tmp_path):
    write(tmp_path / "good.eml", mail().as_bytes())
    with pytest.raises(SourceError, match=r"bad\.eml cannot be read .*nested too deeply"):
        read(write(tmp_path / "bad.eml", nested(10_000)))
    assert only_document(write(tmp_path / "few.eml", nested(50))).text.endswith("deep text")


def test_ten_thousand_parts_side_by_side(tmp_path):
    part = b"--x\nContent-Type: text/plain\n\n%d\n"
    content = (
        HEAD + b'Content-Type: multipart/mixed; boundary="x"\n\n' + b"".join(part % n for n in range(10_000))
    )
    text = only_document(write(tmp_path / "a.eml", content)).text
    assert text.endswith("\n\n9998\n\n9999")


def test_mails_in_mails_have_a_limit(tmp_path):
    message = mail("0", "innermost")
    for number in range(1, 6):
        outer = mail(str(number))
        outer.add_attachment(message)
        message = outer
    with pytest.warns(SourceWarning, match="nested in 2 other archives or emails"):
        assert [d.title for d in read(save(tmp_path / "a.eml", message))] == ["5", "4", "3"]
