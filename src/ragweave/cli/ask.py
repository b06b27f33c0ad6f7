"""``ragweave ask``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from ragweave.cli import options, takes_options
from ragweave.cli.console import count_of, print_json, progress_bar, stdout, warn
from ragweave.cli.pipelines import AnswerOptions
from ragweave.provenance.answers import Answer
from ragweave.provenance.terminal import coloured_answer, heat_map
from ragweave.types import ScoredPassage

_INDENT = 19  # the width of a passage's scores


@takes_options
def ask(
    questions: Annotated[
        list[str], typer.Argument(metavar="QUESTION...", help="Questions; - reads standard input.")
    ],
    kb: options.KnowledgeBaseOption,
    given: AnswerOptions,
    where: options.Where = None,
    extractive: options.Extractive = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show which passage each token of the answer came from.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Answer questions from a knowledge base.

    Each answer is printed with its confidence, its passages and their weights. Where the confidence is too low, the
    answer is "The documents do not say.", with the nearest passages and the best guess. A dash instead of a question
    reads questions from standard input, one per line.

    Examples:
      ragweave ask --kb kb "What is the capital of Mongolia?"
      ragweave ask --kb kb --n-docs 10 --beams 4 "Who wrote it?" "When?"
      ragweave ask --kb kb --json - < questions.txt > answers.jsonl
      ragweave ask --kb kb --explain "What is the capital of Mongolia?"
      ragweave ask --kb kb --retrieval hybrid --dense-weight 0.7 "What does error E1234 mean?"
      ragweave ask --kb kb --min-confidence 0.5 "What is the hotel limit in Japan?"
      ragweave ask --kb kb --generator http://127.0.0.1:8080/v1 --generator-model qwen3-4b "Who wrote it?"
      ragweave ask --kb kb --rerank cross-encoder/ms-marco-MiniLM-L6-v2 "Who wrote it?"
    """
    questions = with_stdin(questions)
    if not questions:
        warn("There are no questions on standard input.")
        return
    pipeline = given.load(kb, where)
    size = len(pipeline.knowledge_base)
    if given.n_docs is not None and given.n_docs > size:
        warn(
            f"The knowledge base has {count_of(size, 'passage')}, not {given.n_docs}; answering from all of them."
        )
    finished: dict[int, Answer] = {}
    printed = 0
    with progress_bar("Answering", total=len(questions), hidden=len(questions) == 1) as advance:
        for i, answer in pipeline.stream(
            questions,
            **given.answering(),
            extractive=extractive,
            progress=advance,
        ):
            finished[i] = answer
            for name, reason in getattr(answer, "failed", {}).items():
                warn(f"{name} did not count for {answer.question!r}: {reason}")
            # Batches are sorted by length; answers are printed in the order of the questions.
            while printed in finished:
                if as_json:
                    print_json(finished.pop(printed).to_dict(tokens=explain))
                else:
                    _print_answer(finished.pop(printed), explain=explain, console=stdout())
                printed += 1


def with_stdin(questions: list[str]) -> list[str]:
    """Replace a dash among the questions with the lines of standard input."""
    lines: list[str] = []
    for question in questions:
        lines += [line.strip() for line in sys.stdin if line.strip()] if question == "-" else [question]
    return lines


def _print_answer(answer: Answer, *, explain: bool, console: Console) -> None:
    console.print(Text(answer.question, style="dim"))
    console.print(coloured_answer(answer) if explain else Text(answer.answer or "(no answer)", style="bold"))
    console.print(Text(answer.judgement, style="dim"))
    print_passages(answer, console, numbered=explain)
    if explain and answer.passages:
        console.print()
        console.print(heat_map(answer, console.width))
    console.print()


def print_passages(answer: Answer, console: Console, *, numbered: bool) -> None:
    """Print the passages of an answer with their weights, one per line."""
    console.print(Text(f"{'posterior':>9}  {'prior':>6}  passage", style="dim"))
    for i, passage in enumerate(answer.passages):
        line = Text(f"{passage.posterior:9.3f}  {passage.prior:6.3f}  ")
        line.append(f"[{i + 1}] " if numbered else "", style="bold")
        print_passage(line, passage, answer.quote(i, console.width - _INDENT), console)


def print_passage(line: Text, passage: ScoredPassage, quote: str, console: Console) -> None:
    """Print a passage: a line that begins with its scores, then a line with a quotation.

    Where it was read is never cut off: if it does not fit behind the title, it follows on a line of its own.
    """
    line.append(passage.title or passage.id, style="cyan")
    origin = Text(f"  {passage.origin}")
    if fits := line.cell_len + origin.cell_len <= console.width:
        line.append_text(origin)
    line.truncate(console.width, overflow="ellipsis")
    console.print(line)
    if not fits:
        console.print(Text(" " * _INDENT + passage.origin), soft_wrap=True)
    shown = Text(" " * _INDENT + quote, style="dim")
    shown.truncate(console.width, overflow="ellipsis")
    console.print(shown)
