"""Source code: a document for each function, class and method, titled by the file's path and their name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise

from ragweave.knowledge.ingest.loaders.text import read_text
from ragweave.types import Document, SourceFile

_CONTAINERS = "class|interface|struct|enum|trait|impl|module|namespace|object|record|protocol|extension"
_CONTAINER = re.compile(rf"(?:[\w@]+[ \t]+){{0,4}}(?:{_CONTAINERS})\b[ \t]+([\w.$:]+)")
_FUNCTION = re.compile(
    r"(?:[\w@]+[ \t]+){0,4}(?:function\*?|func|fn|fun|def|defp|sub|proc|type|create\s+\w+)[ \t]+"
    r"(?:\([^)]{0,80}\)[ \t]*)?([\w.$:]+)"  # after the receiver of a method in Go
    r"|(?:[\w$:<>\[\],*&~]+[ \t]+){0,5}[*&]*([\w$:~]+)[ \t]*\([^;]*$",
    re.IGNORECASE,
)
_STATEMENT = re.compile(
    r"(?:if|else|elif|for|foreach|while|switch|case|catch|try|return|with|do|throw|raise|import|await|assert)\b"
)
_ATTACHED = re.compile(r"[ \t]*(?:#(?!include|define|if|pragma)|//|/\*|\*|--|@|\[|\"\"\"|$)")
# Methods are indented by at most this much, and comments before a function have at most this many lines.
_INDENT = 4
_COMMENT_LINES = 30


def read_code(file: SourceFile) -> Iterator[Document]:
    """Read source code. Code outside functions and classes is titled by the path alone."""
    text = read_text(file.path)
    is_python = file.path.suffix.lower() in {".py", ".pyi"}
    sections = (_python_sections(text) if is_python else None) or _sections(text)
    lines = text.split("\n")
    ids: set[str] = set()
    for (start, name), (end, _) in pairwise([*sections, (len(lines), "")]):
        if not (body := "\n".join(lines[start:end])).strip():
            continue
        title = f"{file.name}::{name}" if name else file.name
        identifier = title if title not in ids else f"{title}:{start + 1}"
        ids.add(identifier)
        yield Document(identifier, title, body, file.source, line=start + 1, keeps_lines=True)


def _python_sections(text: str) -> list[tuple[int, str]] | None:
    """The lines that begin functions, classes and methods, with their names; ``None`` if it is not valid Python."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    sections, lines = [(0, "")], text.split("\n")

    def add(nodes: list[ast.stmt], prefix: str) -> None:
        for node in nodes:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                while first > 1 and lines[first - 2].lstrip().startswith("#"):
                    first -= 1
                sections.append((first - 1, prefix + node.name))
                if isinstance(node, ast.ClassDef) and not prefix:
                    add(node.body, f"{node.name}.")
                sections.append((node.end_lineno or first, prefix[:-1]))

    add(tree.body, "")
    return _merged(sections)


def _sections(text: str) -> list[tuple[int, str]]:
    """Cut source code of any language at the blank lines before its functions and classes, and those in its classes.

    Indentation distinguishes these from code inside functions in all common languages.
    """
    sections, container, after_blank = [(0, "")], "", True
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if after_blank and line.strip() and line.strip()[0] not in ")]}" and (line[0].strip() or container):
            # Comments and decorators belong to what follows.
            following = lines[number : number + _COMMENT_LINES]
            head = next((each for each in following if not _ATTACHED.match(each)), "")[:200]
            indent = len(head) - len(head := head.strip())
            outer = _CONTAINER.match(head)
            match = outer or (None if _STATEMENT.match(head) else _FUNCTION.match(head))
            name = next(filter(None, match.groups()), "") if match else ""
            if not indent:
                container = name if outer else ""
                sections.append((number, name))
            elif indent <= _INDENT and name:
                sections.append((number, f"{container}.{name}"))
        after_blank = not line.strip()
    return _merged(sections)


def _merged(sections: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Drop empty sections, and join those that continue the one before."""
    merged: list[tuple[int, str]] = []
    for start, name in sections:
        while merged and merged[-1][0] >= start:
            merged.pop()
        if not merged or merged[-1][1] != name:
            merged.append((start, name))
    return merged
