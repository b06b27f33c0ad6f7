"""``ragweave search``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

import ragweave
from ragweave.cli import options
from ragweave.cli.ask import print_passage, with_stdin
from ragweave.cli.console import print_json, progress_bar, quiet_libraries, stdout, warn
from ragweave.types import RetrievalKind, ScoredPassage, SearchSettings, without_title

_TOGETHER = 64


def search(
    kb: options.KnowledgeBaseArgument,
    questions: Annotated[
        list[str], typer.Argument(metavar="QUESTION...", help="Questions; - reads standard input.")
    ],
    n_docs: Annotated[int, typer.Option(min=1, help="Passages per question.")] = 5,
    retrieval: Annotated[
        RetrievalKind | None,
        typer.Option(help="Search vectors (dense), words (bm25) or both (default: the encoder's)."),
    ] = None,
    fusion: options.FusedBy = "weighted",
    dense_weight: options.DenseWeight = None,
    candidates: options.Candidates = 100,
    where: options.Where = None,
    rerank: options.Rerank = None,
    model: options.SameEncoder = None,
    device: options.Device = None,
    as_json: options.AsJson = False,
) -> None:
    """Search a knowledge base for passages, without a generator.

    Each passage is printed with its score, its probability p(z|x) among those that were found, and its place. With
    the embedded encoder, search is by vectors and words, and with others by vectors, as in 'ragweave ask'.

    Examples:
      ragweave search kb "the capital of Mongolia"
      ragweave search kb --n-docs 20 --retrieval bm25 "error E1234"
      ragweave search kb --json - < questions.txt > passages.jsonl
    """
    questions = with_stdin(questions)
    if not questions:
        warn("There are no questions on standard input.")
        return
    base = ragweave.KnowledgeBase.open(kb)
    settings = SearchSettings(retrieval, fusion, dense_weight, candidates, where=where)
    quiet_libraries()
    encoder = None
    if model or device:
        encoder = options.load_encoder(model, base, device=device)
    reranker = None
    if rerank is not None:
        from ragweave.encoders.late_interaction import load_reranker

        reranker = load_reranker(rerank, device=device)
    with progress_bar("Searching", total=len(questions), hidden=len(questions) == 1) as advance:
        for start in range(0, len(questions), _TOGETHER):
            part = questions[start : start + _TOGETHER]
            results = base.search(part, n_docs, encoder=encoder, settings=settings, reranker=reranker)
            for question, passages in zip(part, results, strict=True):
                if as_json:
                    print_json({"question": question, "passages": list(map(asdict, passages))})
                else:
                    _print(question, passages, stdout())
            advance(len(part))


def _print(question: str, passages: tuple[ScoredPassage, ...], console: Console) -> None:
    console.print(Text(question, style="bold"))
    console.print(Text(f"{'score':>9}  {'p(z|x)':>6}  passage", style="dim"))
    for passage in passages:
        print_passage(
            Text(f"{passage.doc_score:9.3f}  {passage.prior:6.3f}  "),
            passage,
            " ".join(without_title(passage).split()),
            console,
        )
    console.print()
