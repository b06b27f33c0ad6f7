"""``ragweave ask``: answers from a knowledge base, with where they came from."""

from __future__ import annotations

import json
import sys
from collections.abc import Sized
from typing import TYPE_CHECKING, Annotated

import typer

from ragweave.cli.models import Beams, Device, GeneratorDtype, MaxNewTokens, ModelFormulation, NDocs, RagModel
from ragweave.cli.searching import Candidates, DenseWeight, FusedBy, Rerank, Retrieval

if TYPE_CHECKING:
    from rich.console import Console

    from ragweave.provenance.answers import Answer

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
    model: RagModel = "embedded",
    n_docs: NDocs = None,
    beams: Beams = 1,
    max_new_tokens: MaxNewTokens = 32,
    formulation: ModelFormulation = None,
    retrieval: Retrieval = None,
    fusion: FusedBy = "weighted",
    dense_weight: DenseWeight = None,
    candidates: Candidates = 100,
    rerank: Rerank = None,
    extractive: Annotated[
        bool | None,
        typer.Option(
            "--extractive/--free",
            help="Answer only with words that stand together in a passage, or freely (default: the model's).",
        ),
    ] = None,
    dtype: GeneratorDtype = "auto",
    device: Device = None,
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
    from ragweave.pipeline.rag_pipeline import RagPipeline
    from ragweave.types import SearchSettings

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
