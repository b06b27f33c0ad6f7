"""Emails, one in a file (.eml) or many (.mbox): a document for each, and those of its attachments."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from email.message import EmailMessage, Message
from email.parser import BytesParser
from email.policy import default
from functools import partial
from mimetypes import guess_extension
from pathlib import PurePath
from typing import cast

from ragweave.errors import SourceError
from ragweave.knowledge.ingest.loaders.archives import Entry, Unpacker
from ragweave.knowledge.ingest.loaders.html import parse_page
from ragweave.knowledge.ingest.loaders.text import (
    decode_declared,
    no_access,
    printable,
    read_bytes,
    title_from_name,
    warn_loss,
)
from ragweave.knowledge.ingest_settings import ReadSettings
from ragweave.types import Document, SourceFile

_HEADERS = ("From", "To", "Cc", "Date", "Subject")
_MAIL_AT_MOST = 128 * 2**20


def read_mail(file: SourceFile, settings: ReadSettings) -> Iterator[Document]:
    """Read an email, titled by its subject, and the files attached to it."""
    with Unpacker(file, settings) as unpacker:
        yield from _documents(file, file.name, read_bytes(file.path), unpacker)


def read_mbox(file: SourceFile, settings: ReadSettings) -> Iterator[Document]:
    """Read the emails of a mailbox; each is named by the file and its number."""
    has_mail = False
    with Unpacker(file, settings) as unpacker:
        for number, content in enumerate(_mails(file), start=1):
            try:
                for document in _documents(file, f"{file.name}:{number}", content, unpacker):
                    has_mail = True
                    yield document
            except _NoMailError as error:
                warn_loss(file.name, str(error))
    if not has_mail:
        raise SourceError(f"The file {file.path} cannot be read: it contains no email. Leave it out.")


class _NoMailError(SourceError):
    """The content of a file is not an email."""


def _mails(file: SourceFile) -> Iterator[bytes]:
    """Split a mailbox at the lines that begin an email."""
    lines: list[bytes] = []
    size = 0
    try:
        with file.path.open("rb") as stream:
            while line := stream.readline(_MAIL_AT_MOST):
                if line.startswith(b"From ") and (not lines or not lines[-1].strip()):
                    if size:
                        yield b"".join(lines)
                    lines, size = [b"\n"], 0  # the line itself is not part of the email
                    continue
                is_quoted = line.startswith(b">") and line.lstrip(b">").startswith(b"From ")
                lines.append(line[is_quoted:])
                size += len(line)
                if size > _MAIL_AT_MOST:
                    raise SourceError(f"An email in {file.path} has more than {_MAIL_AT_MOST // 2**20} MiB.")
    except OSError as error:
        raise no_access(file.path, error) from error
    if size:
        yield b"".join(lines)


def _documents(file: SourceFile, name: str, content: bytes, unpacker: Unpacker) -> Iterator[Document]:
    attachments: dict[str, bytes] = {}
    try:
        mail = BytesParser(EmailMessage, policy=default).parsebytes(content.lstrip())
        headers = {header: _header(mail, header) for header in _HEADERS}
        body = _text(file, mail, attachments)
    except Exception as error:  # whatever the parser of a library raises on damaged headers
        raise _NoMailError(
            f"The email {name} cannot be read ({type(error).__name__}): it is damaged or nested too deeply."
        ) from error
    if not any(headers.values()):
        raise _NoMailError(f"{name} is not an email: it has no sender, no recipient, no date and no subject.")
    lines = [f"{header}: {value}" for header, value in headers.items() if value]
    if attachments:
        lines.append(f"Attachments: {', '.join(attachments)}")
    text = "\n".join([*lines, "", body])
    yield Document(id=name, title=headers["Subject"] or title_from_name(name), text=text, source=file.source)
    for attachment, data in attachments.items():
        entry = Entry(attachment, len(data), partial(io.BytesIO, data))
        yield from unpacker.documents(f"{name}/{attachment}", entry)


def _text(file: SourceFile, part: Message, attachments: dict[str, bytes]) -> str:
    """The text of a part of an email; collects the attachments in it."""
    kind = part.get_content_type()
    content, parts = part.get_payload(decode=True), cast("list[Message]", part.get_payload())
    if part.is_multipart() and kind != "message/rfc822":
        texts = [_text(file, child, attachments) for child in parts]
        if kind == "multipart/alternative":
            # Plain text comes first, but some programs put only a notice there that the email is HTML.
            texts = [next((text for text in texts if 3 * len(text) > max(map(len, texts))), "")]
        return "\n\n".join(filter(None, texts))
    name = PurePath(re.sub(r"[\\\0]", "/", _clean(part.get_filename() or ""))).name
    is_text = kind in ("text/plain", "text/html") or kind.startswith(
        "multipart/"
    )  # the latter without its parts
    if is_text and not name and part.get_content_disposition() != "attachment":
        data = content if isinstance(content, bytes) else b""
        text, encoding, lost = decode_declared(data, part.get_content_charset() or "")
        if lost:
            warn_loss(file.name, f"{lost} bytes of an email are not {encoding}, replaced by \ufffd.")
        return parse_page(text).text if kind == "text/html" else text.replace("\r\n", "\n").strip()
    if kind.startswith("image/") and part["Content-ID"]:  # a picture within the text
        return ""
    ending = guess_extension(kind) or ""
    if kind == "message/rfc822" and part.is_multipart():
        content, ending = parts[0].as_bytes(), ".eml"
    if isinstance(content, bytes):
        name = name or f"part{ending}"
        attachments[f"{len(attachments) + 1}-{name}" if name in attachments else name] = content
    return ""


def _header(mail: Message, name: str) -> str:
    try:
        return _clean(str(mail[name] or ""))
    except Exception:  # of a header that the library's parser cannot read
        return ""


def _clean(text: str) -> str:
    """A header on one line, with escapes for bytes of no known encoding."""
    return " ".join(printable(text).split())
