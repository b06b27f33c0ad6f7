"""Files to read documents from, and the documents in them."""

from __future__ import annotations

import zipfile
from pathlib import Path

from ragweave.knowledge.ingest.loaders.loader import read_documents
from ragweave.knowledge.ingest_settings import DEFAULT_READING, ReadSettings
from ragweave.types import Document


def read(*sources: Path, settings: ReadSettings = DEFAULT_READING) -> list[Document]:
    return list(read_documents(sources, settings))


def only_document(path: Path) -> Document:
    """The one document of a file, which is named by the file."""
    (document,) = read(path)
    assert (document.id, document.source) == (path.name, str(path))
    return document


def write(path: Path, content: str | bytes) -> Path:
    """Write a file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def write_pdf(path: Path, pages: list[str], trailer: str = "") -> Path:
    """Write a PDF by hand: a catalogue, a font, and for each page a stream that shows one line."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", ""]
    objects.append("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    kids = []
    for text in pages:
        stream = f"BT /F1 12 Tf 72 700 Td ({text}) Tj ET"
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {len(objects)} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>"
        )
        kids.append(f"{len(objects)} 0 R")
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>"
    content, offsets = "%PDF-1.4\n", []
    for number, text in enumerate(objects, start=1):
        offsets.append(len(content))
        content += f"{number} 0 obj\n{text}\nendobj\n"
    start = len(content)
    content += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n"
    content += "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    content += f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R {trailer} >>\nstartxref\n{start}\n%%EOF\n"
    return write(path, content)


def write_zip(path: Path, files: dict[str, str]) -> Path:
    """Write a zip file, which office documents and books are."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path
