"""``GET /documents``: the text of a document as it was indexed, with one passage marked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from itertools import pairwise
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Query, Response
from fastapi.responses import HTMLResponse

from ragweave.errors import ConfigurationError
from ragweave.serving.documents import Excerpt
from ragweave.serving.routes.dependencies import ServiceDependency, errors
from ragweave.types import Passage, without_title

router = APIRouter(tags=["documents"])

_PAGE = """<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <meta name="color-scheme" content="light dark">
    <title>{title} - ragweave</title>
    <link rel="icon" href="/static/icon.svg" type="image/svg+xml">
    <link rel="stylesheet" href="/static/style.css">
    <script type="module" src="/static/document.js"></script>
  </head>
  <body>
    <header><h1>{title}</h1><p class="quiet">{origin}</p></header>
    <main class="document passage-0" dir="auto"{markdown}>{text}</main>
    <footer class="quiet">This is the text that was indexed. The source may have changed since.
      <a href="/">Ask a question</a></footer>
  </body>
</html>
"""


@router.get(
    "/documents",
    response_class=Response,  # HTMLResponse would declare that errors are HTML as well
    responses={
        200: {"content": {"text/html": {"schema": {"type": "string"}}}},
        **errors(401, 404, 422, 429, 503, 504),
    },
)
async def document(
    service: ServiceDependency,
    name: Annotated[
        str | None,
        Query(alias="id", min_length=1, description="Id of a passage, which is marked, or of a document."),
    ] = None,
    source: Annotated[
        str | None, Query(description="Id of a source, whose first document is shown. Give this or id.")
    ] = None,
) -> HTMLResponse:
    """The text of a document around a passage, rebuilt from the passages of the knowledge base."""
    if (name is None) == (source is None):
        raise ConfigurationError("Give id or source.")
    if source is not None:
        name = await service.queries.run(service.documents.first_document, source)
    return HTMLResponse(_render(await service.queries.run(service.documents.excerpt, name), service.name))


def page_url(passage_id: str, kb: str) -> str:
    """The address of a passage within the service."""
    base = f"&kb={quote(kb, safe='')}" if kb else ""
    return f"documents?id={quote(passage_id, safe='')}{base}#passage"


def _render(excerpt: Excerpt, kb: str) -> str:
    passages, marked = excerpt.passages, excerpt.marked
    shown = passages[0] if marked is None else passages[marked]
    pieces = [_omission(excerpt.before, page_url(passages[0].id, kb), "before"), _heading(passages[0], shown)]
    for number, text in enumerate(_texts(passages, marked)):
        pieces.append(f'<mark id="passage">{escape(text)}</mark>' if number == marked else escape(text))
        if number + 1 < len(passages):
            pieces.append(_separator(passages[number], passages[number + 1]))
    pieces.append(_omission(excerpt.after, page_url(passages[-1].id, kb), "after"))
    place = str(shown.place.below(shown.title)) if marked is not None else ""
    return _PAGE.format(
        title=escape(shown.title or shown.document_id),
        origin=escape(", ".join(filter(None, (shown.source, place)))),
        text="".join(pieces),
        markdown=" data-markdown" if shown.source.lower().endswith((".md", ".markdown")) else "",
    )


def _texts(passages: Sequence[Passage], marked: int | None) -> list[str]:
    """The texts of consecutive passages. An overlap stays in the first of the two, or in the marked one."""
    texts = [without_title(passages[0])]  # the title stands above
    for number, (before, passage) in enumerate(pairwise(passages), start=1):
        # Passages differ from the document only in white space.
        end, start = (re.sub(r"\s", " ", one.text) for one in (before, passage))
        most = min(max(before.end - passage.start, 0), len(start))
        repeated = next((size for size in range(most, 0, -1) if end.endswith(start[:size])), 0)
        if number == marked:
            texts[-1] = texts[-1][: max(len(texts[-1]) - repeated, 0)]
            repeated = 0
        texts.append(passage.text[repeated:])
    return texts


def _separator(before: Passage, passage: Passage) -> str:
    """The text between two passages: a heading, a paragraph or line break, a space, or nothing."""
    if heading := _heading(passage, before):
        return heading
    numbers = [one.id.rpartition("#")[2] for one in (before, passage)]
    if all(map(str.isdecimal, numbers)) and int(numbers[1]) - int(numbers[0]) > 1:
        return '<p class="quiet">… This part is also in another document, or was deleted. …</p>'
    distance = passage.start - before.end
    lines = passage.line - before.line - before.text.count("\n")  # none where a document has no lines
    breaks = min(distance, 2, lines) if lines > 0 else 2 * (distance > 1)
    return "\n" * breaks or " " * (distance > 0)


def _heading(passage: Passage, before: Passage) -> str:
    """The title of a passage if it is new. In some documents, titles are paths of headings."""
    return "" if passage.title == before.title else f"<h2>{escape(passage.title)}</h2>"


def _omission(count: int, url: str, direction: str) -> str:
    if not count:
        return ""
    link = f'<a href="/{escape(url)}">Show them</a>'
    return f'<p class="quiet">Not shown: {count} passage{"s" * (count > 1)} {direction} these. {link}</p>'
