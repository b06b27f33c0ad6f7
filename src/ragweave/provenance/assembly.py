"""From what a model computed to answers with their passages and tokens.

Notation used for tensor shapes: B questions, K passages per question, T answer tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from ragweave.marginalization import passage_log_probs
from ragweave.provenance.answers import Answer, AnswerToken, Field, RetrievedPassage, Support
from ragweave.provenance.support import Run, supporting_runs
from ragweave.provenance.token_texts import token_texts
from ragweave.types import ScoredPassage

if TYPE_CHECKING:
    from torch import Tensor

    from ragweave.provenance.posteriors import Provenance


def found_passages(doc: dict[str, Any], rows: NDArray[Any], doc_scores: Tensor) -> list[ScoredPassage | None]:
    """The passages of one question.

    Args:
        doc: Lists of length K: "title" and "text", perhaps "id" and "source".
        rows: Their rows in the index, (K,), -1 for none.
        doc_scores: Scaled passage scores, (K,).

    Returns:
        K passages, ``None`` where there is none.
    """
    priors = passage_log_probs(doc_scores[None])[0].exp().tolist()
    scores = doc_scores.tolist()
    return [
        None
        if row < 0
        else ScoredPassage(
            id=str(doc["id"][k]) if "id" in doc else str(row),
            title=doc["title"][k],
            text=doc["text"][k],
            source=doc["source"][k] if "source" in doc else "",
            doc_score=scores[k],
            prior=priors[k],
        )
        for k, row in enumerate(rows)
    ]


def by_prior(passages: Sequence[ScoredPassage | None]) -> tuple[ScoredPassage, ...]:
    """Those of K passages that are there, by falling p(z|x)."""
    there = [passage for passage in passages if passage is not None]
    return tuple(sorted(there, key=lambda passage: -passage.prior))


def assemble(
    questions: Sequence[str],
    found: Sequence[Sequence[ScoredPassage | None]],
    sequences: Tensor,
    provenance: Provenance,
    tokenizer: Any,
) -> list[Answer]:
    """Put B answers together.

    Args:
        questions: The questions.
        found: The K passages of each; ``None`` where there is none.
        sequences: The answers as ``generate`` returned them, (B, 1+T), start token first.
        provenance: Where they came from.
        tokenizer: The generator's tokenizer.
    """
    texts = tokenizer.batch_decode(sequences[:, 1:], skip_special_tokens=True)
    answers = []
    for b, (question, text) in enumerate(zip(questions, texts, strict=True)):
        whole = provenance.posterior[b].tolist()
        there = [(k, passage) for k, passage in enumerate(found[b]) if passage is not None]
        there.sort(key=lambda own: -whole[own[0]])
        order = [k for k, _ in there]
        passages = tuple(RetrievedPassage(**asdict(passage), posterior=whole[k]) for k, passage in there)
        scored = provenance.scored[b]
        answers.append(
            Answer(
                question=question,
                answer=text.strip(),
                score=float(provenance.log_likelihood[b]),
                passages=passages,
                tokens=_tokens(
                    text.strip(),
                    token_texts(sequences[b, 1:][scored].tolist(), text.strip(), tokenizer),
                    provenance.token_posteriors[b][order][:, scored].T.tolist(),
                    passages,
                ),
            )
        )
    return answers


def _tokens(
    answer: str,
    texts: Sequence[str],
    posteriors: Sequence[Sequence[float]],
    passages: Sequence[RetrievedPassage],
) -> tuple[AnswerToken, ...]:
    """Tokens with their T texts, (T, K) posteriors, and the words that support them."""
    repeated: dict[int, dict[Field, list[Run | None]]] = {}
    tokens = []
    ends = list(accumulate(map(len, texts)))
    for text, end, own in zip(texts, ends, posteriors, strict=True):
        token = AnswerToken(text, tuple(own), None)
        best = token.passage
        if best is not None and text:
            if best not in repeated:
                passage = passages[best]
                repeated[best] = {
                    "text": supporting_runs(answer, passage.text),
                    "title": supporting_runs(answer, passage.title),
                }
            token = AnswerToken(text, token.posteriors, _support(best, repeated[best], end - len(text), end))
        tokens.append(token)
    return tuple(tokens)


def _support(passage: int, repeated: dict[Field, list[Run | None]], start: int, end: int) -> Support | None:
    """The longest run of words around the characters of a token; in the text before the title."""
    found: tuple[int, Support] | None = None
    for field, runs in repeated.items():
        for run in runs[start:end]:
            if run is not None and (found is None or run.words > found[0]):
                found = run.words, Support(passage, field, run.start, run.end)
    return None if found is None else found[1]
