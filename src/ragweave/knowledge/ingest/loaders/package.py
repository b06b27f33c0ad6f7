"""Zip files of XML parts: Word and PowerPoint files and EPUB books. Nothing outside of the file is opened."""

from __future__ import annotations

import lzma
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from posixpath import dirname, join, normpath, split
from typing import NamedTuple

from lxml import etree

from ragweave.errors import SourceError
from ragweave.knowledge.ingest.loaders.text import PROLOG, damaged_file, decode_declared, warn_loss
from ragweave.types import SourceFile

# A file that unpacks to more than both this size and this multiple of its own is made to exhaust memory.
UNPACKED_AT_MOST = 256 * 2**20
UNPACKED_TIMES = 100
_PART_AT_MOST = 128 * 2**20

DAMAGED_PART = (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)
"""What reading a damaged part of a zip file raises."""


class Relation(NamedTuple):
    """A link from one part to another."""

    kind: str  # the last word of its type's address, such as ``image``
    part: str  # the name of the other part; empty if it is outside of the file


class Package:
    """The parts of a file. A missing or damaged part causes a warning that names it."""

    def __init__(self, file: SourceFile, content: zipfile.ZipFile) -> None:
        self.file = file
        self._zip = content
        self._named: set[str] = set()
        self.names = {name.replace("\\", "/"): name for name in content.namelist()}

    def warn(self, loss: str) -> None:
        """Warn of a loss."""
        warn_loss(self.file.name, loss)

    def read(self, part: str) -> bytes:
        """Read a part; empty with a warning if it is missing or damaged."""
        if part not in self.names:
            self.warn(f"its part {part} is missing.")
            return b""
        entry = self._zip.getinfo(self.names[part])
        if entry.file_size > _PART_AT_MOST:
            self.warn(f"its part {part} has more than {_PART_AT_MOST // 2**20} MiB and is not read.")
            return b""
        try:
            return self._zip.read(entry)
        except DAMAGED_PART as error:
            self.warn(f"its part {part} is damaged ({error}).")
            return b""

    def text(self, part: str) -> str:
        """Read and decode a part."""
        text, encoding, lost = decode_declared(self.read(part))
        if lost:
            self.warn(f"its part {part} has bytes that are not {encoding} ({lost}), replaced by \ufffd.")
        return text

    def xml(self, part: str, *, optional: bool = False) -> etree._Element:
        """Parse a part as far as it is intact; an empty element if it is missing."""
        text = PROLOG.sub("", "" if optional and part not in self.names else self.text(part))
        parser = etree.XMLParser(
            encoding="utf-8", recover=True, resolve_entities=False, no_network=True, remove_comments=True
        )
        root = etree.fromstring(text.encode("utf-8", "replace"), parser) if text.strip() else None
        if text and (root is None or parser.error_log):
            reason = parser.error_log[0].message if parser.error_log else "it is not XML"
            self.warn(f"its part {part} is damaged ({reason}): some of its text may be missing.")
        return etree.Element("missing") if root is None else root

    def relations(self, part: str) -> dict[str, Relation]:
        """The relations of a part by their ids; those of the whole file for an empty name."""
        relations = {}
        for relation in self.xml(relations_of(part), optional=True).iter("{*}Relationship"):
            outside = relation.get("TargetMode") == "External"
            target = target_of(part, relation.get("Target", ""))
            kind = relation.get("Type", "").rpartition("/")[2]
            relations[relation.get("Id", "")] = Relation(kind, "" if outside else target)
        return relations

    def related(self, part: str, *kinds: str) -> Iterator[str]:
        """Yield the parts to which a part has one of these kinds of relation, each part of the file only once."""
        for relation in self.relations(part).values():
            if relation.kind in kinds and relation.part and self.is_new(relation.part):
                yield relation.part

    def is_new(self, part: str) -> bool:
        """Whether this is the first time that a part is named here: a file may refer to one part 20,000 times."""
        new = part not in self._named
        self._named.add(part)
        return new


def relations_of(part: str) -> str:
    """The part that lists the relations of a part; those of the whole file for an empty name."""
    folder, name = split(part)
    return join(folder, "_rels", f"{name}.rels")


def target_of(part: str, target: str) -> str:
    """The part that another one names by a path relative to its folder."""
    return normpath(join("/", dirname(part), target.replace("\\", "/"))).lstrip("/")


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip file; raises `SourceError` if it is damaged, or declares an enormous unpacked size."""
    try:
        content = zipfile.ZipFile(path)
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise damaged_file(path, error) from error
    unpacked = sum(entry.file_size for entry in content.infolist())
    if unpacked > UNPACKED_AT_MOST and unpacked > UNPACKED_TIMES * path.stat().st_size:
        content.close()
        raise SourceError(
            f"The file {path} unpacks to {unpacked // 2**20} MiB, more than a hundred times its size: leave it out."
        )
    return content


def local_name(element: etree._Element) -> str:
    """The name of an element without its namespace; each format has several namespaces."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def attribute(element: etree._Element, name: str) -> str:
    """An attribute by its name without namespace; empty if it is missing."""
    return next((value for key, value in element.items() if key.rpartition("}")[2] == name), "")
