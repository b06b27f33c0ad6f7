"""Text of documents: words and order of several readers against a reference, and their time.

python benchmarks/document_text.py FOLDER [--kind docx] [--readers ragweave ...] [--files]

The reference is pdftotext for PDF files, and LibreOffice for .docx, .pptx and .xlsx files. Each file is read in a
process of its own. Files in which the reference finds no word are left out of the means.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import unicodedata
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import regex

TIMEOUT = 600
# CJK is written without spaces, so every character counts as a word, as it does in the index of words.
_WORD = regex.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|(?:(?![\u3040-\u30ff\u3400-\u9fff])[\p{L}\p{M}\p{N}])+"
)


def pdftotext(path: Path) -> str:
    command = ["pdftotext", str(path), "-"]
    return subprocess.run(command, check=True, capture_output=True).stdout.decode()  # noqa: S603


def libreoffice(path: Path) -> str:
    """What LibreOffice shows; all sheets of a workbook, and hidden ones too."""
    target = {
        ".docx": "txt:Text (encoded):UTF8",
        ".pptx": "pdf",
        ".xlsx": "csv:Text - txt - csv (StarCalc):44,34,76,1,,0,false,true,true,false,false,-1",
    }[path.suffix]
    with tempfile.TemporaryDirectory() as folder:
        command = ["soffice", "--headless", "--convert-to", target, "--outdir", folder, str(path)]
        subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT)  # noqa: S603
        files = sorted(Path(folder).iterdir())
        return "\n".join(pdftotext(f) if f.suffix == ".pdf" else f.read_text("utf-8-sig") for f in files)


def pypdfium2(path: Path) -> str:
    import pypdfium2

    with pypdfium2.PdfDocument(path) as document:
        return "\f".join(page.get_textpage().get_text_bounded() for page in document)


def pdfplumber(path: Path) -> str:
    import pdfplumber

    with pdfplumber.open(path) as document:
        texts = []
        for page in document.pages:
            texts.append(page.extract_text())
            page.close()  # else the characters of every page stay in memory
        return "\f".join(texts)


def pdfminer(path: Path) -> str:
    from pdfminer.high_level import extract_text

    return extract_text(path)


def ragweave(path: Path) -> str:
    from ragweave.knowledge.ingest.loaders import reader_process
    from ragweave.knowledge.ingest.loaders.loader import read_documents
    from ragweave.knowledge.ingest_settings import ReadSettings, TableSettings

    settings = ReadSettings(tables=TableSettings(hidden_sheets=True))
    try:
        documents = list(read_documents([path], settings))
    finally:
        for process in reader_process._idle_processes():
            process.close()  # only a process that has ended is counted among the children
    # The title of a PDF file is on its first page, but that of a row or a workbook may stand nowhere else.
    titles = [] if path.suffix == ".pdf" else [document.title for document in documents]
    return "\f".join([*titles, *(document.text for document in documents)])


READERS: dict[str, Callable[[Path], str]] = {
    reader.__name__: reader for reader in (pdftotext, pypdfium2, pdfplumber, pdfminer, libreoffice, ragweave)
}


def words_of(text: str) -> list[str]:
    text = unicodedata.normalize("NFKC", text.replace("\r\n", "\n"))
    text = re.sub(r"(?<=\w)[-\u2010\ufffe\x02]\n(?=\w)", "", text)  # hyphens at line ends
    text = "".join(c for c in text if unicodedata.category(c) != "Cf")  # marks of direction
    return _WORD.findall(text.casefold())


def overlap(reference: Counter[Any], candidate: Counter[Any]) -> tuple[float, float]:
    """Recall and precision of a multiset."""
    shared = (reference & candidate).total()
    return shared / max(1, reference.total()), shared / max(1, candidate.total())


def read_in_child(reader: str, path: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", reader, str(path)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=TIMEOUT)  # noqa: S603
    except subprocess.TimeoutExpired:
        return {"error": f"more than {TIMEOUT} s"}
    if done.returncode:
        lines = done.stderr.decode().strip().splitlines() or [f"exit status {done.returncode}"]
        return {"error": lines[-1][:200]}
    return json.loads(done.stdout)


def child(reader: str, path: Path) -> None:
    """Read one file and print what it took in this process and in those that the reader starts."""
    began = time.process_time()
    text = READERS[reader](path)
    seconds = time.process_time() - began
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds += children.ru_utime + children.ru_stime
    json.dump({"text": text, "seconds": seconds}, sys.stdout)


def measure(reader: str, path: Path, reference: list[str]) -> dict[str, Any]:
    outcome = read_in_child(reader, path)
    if "error" in outcome:
        return {"recall": 0.0, "precision": 0.0, "order": 0.0, **outcome}
    words = words_of(outcome.pop("text"))
    recall, precision = overlap(Counter(reference), Counter(words))
    pairs = [Counter(pairwise(some)) for some in (reference, words)]
    return {"recall": recall, "precision": precision, "order": overlap(*pairs)[0], **outcome}


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], Path(sys.argv[3]))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kind", default="pdf", choices=["pdf", "docx", "pptx", "xlsx"])
    parser.add_argument("--readers", nargs="+", default=["ragweave"], choices=list(READERS))
    parser.add_argument("--files", action="store_true", help="Print a line for each file.")
    args = parser.parse_args()
    results: dict[str, dict[str, dict[str, Any]]] = {reader: {} for reader in args.readers}
    read_reference = pdftotext if args.kind == "pdf" else libreoffice
    for path in sorted(args.folder.rglob(f"*.{args.kind}")):
        reference = words_of(read_reference(path))
        if not reference:
            continue
        for reader in args.readers:
            result = results[reader][path.name] = measure(reader, path, reference)
            if args.files:
                print(reader, path.name, json.dumps(result), flush=True)
    if not any(results.values()):
        parser.error(f"{args.folder} has no {args.kind} file with text.")
    for reader, by_file in results.items():
        print(f"\n{reader}: {len(by_file)} files, {sum('error' in r for r in by_file.values())} not read")
        for key in ("recall", "precision", "order", "seconds"):
            values = {name: result[key] for name, result in by_file.items() if key in result}
            worst = sorted(values, key=values.__getitem__, reverse=key == "seconds")[:4]
            middle, mean = statistics.median(values.values()), statistics.mean(values.values())
            worst_files = ", ".join(f"{values[name]:.3f} {name}" for name in worst)
            print(f"  {key:9} median {middle:8.3f}  mean {mean:8.3f}  worst {worst_files}")


if __name__ == "__main__":
    main()
