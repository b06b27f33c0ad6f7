"""``ragweave ask``: answers from a knowledge base, with where they came from."""

from __future__ import annotations

import json
import sys
from collections.abc import Sized
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ragweave.cli.searching import Candidates, DenseWeight, FusedBy, Rerank, Retrieval

if TYPE_CHECKING:
    from rich.console import Console

    from ragweave.answers import Answer

HELP = """Answer questions from a knowledge base.

Every answer comes with the passages it was made from and how much each of them counted. A single dash in
place of the questions reads them from standard input, one a line.

Examples:

  ragweave ask --kb kb "What is the capital of Mongolia?"

  ragweave ask --kb kb --n-docs 10 --beams 4 "Who wrote it?" "When?"

  ragweave ask --kb kb --json - < questions.txt > answers.jsonl

  ragweave ask --kb kb --explain "What is the capital of Mongolia?"

  ragweave ask --kb kb --retrieval hybrid --dense-weight 0.7 "What does error E1234 mean?"

  ragweave ask --kb kb --rerank cross-encoder/ms-marco-MiniLM-L6-v2 "Who wrote it?"
"""


def ask(
    questions: Annotated[
        list[str], typer.Argument(metavar="QUESTION...", help="Questions; - reads standard input.")
    ],
    kb: Annotated[str, typer.Option("--kb", help="Folder or URI of the knowledge base.")],
    model: Annotated[
        str, typer.Option(help="'embedded', or folder or hub name of a RAG model.")
    ] = "embedded",
    n_docs: Annotated[
        int | None, typer.Option(min=1, help="Passages per question (default: the model's).")
    ] = None,
    beams: Annotated[int, typer.Option("--beams", "--num-beams", min=1, help="Beams of the search.")] = 1,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 32,
    formulation: Annotated[
        Literal["token", "sequence"] | None,
        typer.Option(help="RAG-Token or RAG-Sequence (default: the model's)."),
    ] = None,
    retrieval: Retrieval = "dense",
    fusion: FusedBy = "weighted",
    dense_weight: DenseWeight = 0.5,
    candidates: Candidates = 100,
    rerank: Rerank = None,
    extractive: Annotated[
        bool | None,
        typer.Option(
            "--extractive/--free",
            help="Answer only with words that stand together in a passage, or freely (default: the model's).",
        ),
    ] = None,
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "int8"],
        typer.Option(help="Type that the generator computes in."),
    ] = "auto",
    device: Annotated[str | None, typer.Option(help="Where to compute, such as cuda.")] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show for each token of the answer which passage it came from.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a line, and nothing else.")
    ] = False,
) -> None:
    """Run the command; HELP is what ``--help`` shows."""
    from ragweave.cli.console import progress_bar, quiet_libraries, stdout, warn

    asked = _read(questions)
    if not asked:
        warn("There are no questions on standard input.")
        return
    quiet_libraries()
    from ragweave.knowledge.search import SearchSettings
    from ragweave.pipeline import RagPipeline

    pipeline = RagPipeline.from_pretrained(
        model,
        knowledge_base=kb,
        formulation=formulation,
        search=SearchSettings(retrieval, fusion, dense_weight, candidates),
        reranker=rerank,
        dtype=dtype,
        device=device,
    )
    index = pipeline.retriever.index
    available = len(index) if isinstance(index, Sized) else n_docs
    if n_docs is not None and available is not None and n_docs > available:
        warn(f"The knowledge base has {available} passages; answering from all of them instead of {n_docs}.")
    waiting: dict[int, Answer] = {}
    shown = 0
    with progress_bar("Answering", total=len(asked), hidden=len(asked) == 1) as advance:
        for place, answer in pipeline.stream(
            asked,
            n_docs=n_docs,
            num_beams=beams,
            max_new_tokens=max_new_tokens,
            extractive=extractive,
            progress=advance,
        ):
            waiting[place] = answer
            while shown in waiting:  # in the order of the questions, as soon as they are known
                _show(waiting.pop(shown), explain=explain, as_json=as_json, console=stdout())
                shown += 1


def _read(questions: list[str]) -> list[str]:
    """The questions, with standard input's lines in place of a dash."""
    asked: list[str] = []
    for question in questions:
        if question == "-":
            asked += [line.strip() for line in sys.stdin if line.strip()]
        else:
            asked.append(question)
    return asked


def _show(answer: Answer, *, explain: bool, as_json: bool, console: Console) -> None:
    if as_json:
        sys.stdout.write(json.dumps(answer.to_dict(tokens=explain), ensure_ascii=False) + "\n")
        sys.stdout.flush()
        return
    from rich.text import Text

    from ragweave.cli.heat_map import coloured_answer, heat_map

    console.print(Text(answer.question, style="dim"))
    console.print(coloured_answer(answer) if explain else Text(answer.answer or "(no answer)", style="bold"))
    console.print(Text(f"{'posterior':>9}  {'prior':>6}  passage", style="dim"))
    for place, passage in enumerate(answer.passages):
        line = Text(f"{passage.posterior:9.3f}  {passage.prior:6.3f}  ")
        line.append(f"[{place + 1}] " if explain else "", style="bold")
        line.append(passage.title or passage.id, style="cyan")
        line.append("  " + " ".join(passage.text.split()), style="dim")
        line.truncate(console.width, overflow="ellipsis")
        console.print(line)
    if explain and answer.passages:
        console.print()
        console.print(heat_map(answer, console))
    console.print()
