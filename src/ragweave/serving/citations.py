"""Which passage each part of an answer came from, as annotations of a chat's message."""

from __future__ import annotations

from itertools import accumulate, groupby
from urllib.parse import quote

from ragweave.provenance.answers import Answer
from ragweave.serving.schemas import Annotation, UrlCitation


def annotations_of(answer: Answer) -> list[Annotation]:
    """Cite for each run of tokens the passage that supports them most."""
    ends = list(accumulate(len(token.text) for token in answer.tokens))
    spoken = [(token, end) for token, end in zip(answer.tokens, ends, strict=True) if token.text]
    found = []
    for place, group in groupby(spoken, key=lambda own: own[0].passage):
        own = list(group)
        if place is None:
            continue
        passage = answer.passages[place]
        address = passage.source if "://" in passage.source else f"urn:ragweave:{quote(passage.id, safe='')}"
        found.append(
            Annotation(
                url_citation=UrlCitation(
                    start_index=own[0][1] - len(own[0][0].text),
                    end_index=own[-1][1],
                    title=passage.title or passage.id,
                    url=address,
                    passage_id=passage.id,
                    posterior=sum(token.posteriors[place] for token, _ in own) / len(own),
                )
            )
        )
    return found
