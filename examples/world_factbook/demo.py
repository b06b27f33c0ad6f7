"""Index the CIA World Factbook, hold a conversation about it, and show the passage behind each answer.

Eight questions have an answer in the Factbook, one has none, and one is a follow-up.

Run it from the root of the repository with ``python examples/world_factbook/demo.py``. The first run converts and
indexes the Factbook; later runs reuse the knowledge base.
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
import time
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ragweave import KnowledgeBase
from ragweave.errors import KnowledgeBaseError

if TYPE_CHECKING:
    from ragweave import RagPipeline
    from ragweave.provenance.answers import Answer

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "world-factbook"
EXCERPT_CHARACTERS = 150


@dataclass(frozen=True, slots=True)
class Question:
    """A question of the demonstration.

    Attributes:
        text: As it is asked.
        country: What it is about; training never sees its documents.
        gold: The right answers; none where the Factbook does not say.
        follows: Whether it leans on the question before.
    """

    text: str
    country: str
    gold: tuple[str, ...]
    follows: bool = False


QUESTIONS = (
    Question(
        "Who wrote the national anthem of France?",
        "France",
        ("Claude-Joseph ROUGET de Lisle", "Rouget de Lisle"),
    ),
    Question("What is the currency of Japan?", "Japan", ("yen", "yen (JPY)", "Japanese yen")),
    Question("Which country buys most of Brazil's exports?", "Brazil", ("China",)),
    Question("When did Kenya become independent?", "Kenya", ("12 December 1963", "1963")),
    Question(
        "What is the highest point in Iceland?",
        "Iceland",
        (
            "Hvannadalshnukur",
            "Hvannadalshnukur (at Vatnajokull Glacier)",
            "Hvannadalshnukur (at Vatnajokull Glacier) 2,110 m",
        ),
    ),
    Question("How high is it?", "Iceland", ("2,110 m",), follows=True),
    Question(
        "At what age can people vote in New Zealand?",
        "New Zealand",
        ("18 years", "18 years of age", "18"),
    ),
    Question("What is the largest religion in Peru?", "Peru", ("Catholic", "Catholic 76%", "Catholicism")),
    Question("Who designed the flag of Iceland?", "Iceland", ()),
    Question("What is the capital of Mongolia?", "Mongolia", ("Ulaanbaatar",)),
)
"""Eight questions of eight kinds, one that the Factbook does not answer, and a follow-up."""


@dataclass(frozen=True, slots=True)
class Asked:
    """An answer and how long it took.

    Attributes:
        question: What was asked.
        answer: What the pipeline returned.
        seconds: Time from question to answer.
    """

    question: Question
    answer: Answer
    seconds: float

    @property
    def right(self) -> bool:
        """Whether the words are right and the passage that counted most is about the country.

        Where the Factbook does not say, it is right not to answer.
        """
        if not self.question.gold or not self.answer.answered:
            return not self.question.gold and not self.answer.answered
        passage = max(self.answer.passages, key=lambda passage: passage.posterior)
        return is_right(self.answer.answer, self.question.gold) and passage.title.startswith(
            self.question.country
        )


def normalized(text: str) -> str:
    """Returns a text without case, accents, articles, punctuation and surplus spaces, for comparisons.

    Args:
        text: An answer.
    """
    text = unicodedata.normalize("NFKD", text.lower())
    text = "".join(character for character in text if not unicodedata.combining(character))
    text = re.sub(r"[^\w\s]", "", text)
    return " ".join(re.sub(r"\b(?:a|an|the)\b", " ", text).split())


def is_right(answer: str, gold: tuple[str, ...]) -> bool:
    """Tells whether an answer equals one of the right ones, once both are normalized.

    Args:
        answer: The answer that was given.
        gold: The right answers.
    """
    return normalized(answer) in {normalized(right) for right in gold}


def excerpt(text: str, answer: str, length: int = EXCERPT_CHARACTERS) -> str:
    """Cuts the part of a passage that surrounds the answer.

    Args:
        text: The passage.
        answer: The answer, which need not stand in the passage.
        length: About how many characters to keep.

    Returns:
        The part, with dots where something was left out.
    """
    text = " ".join(text.split())
    start = max(0, text.lower().find(answer.lower()) - length // 2) if answer else 0
    start = text.rfind(" ", 0, start) + 1
    end = len(text) if start + length >= len(text) else max(start + 1, text.rfind(" ", 0, start + length))
    return ("... " if start else "") + text[start:end] + (" ..." if end < len(text) else "")


def run(console: Console, *arguments: str) -> None:
    """Shows a command and runs it.

    Args:
        console: Where the command is shown.
        arguments: What follows the name of the Python interpreter.

    Raises:
        SystemExit: If the command fails; it has said why.
    """
    console.print(f"[bold]$[/bold] {escape(shlex.join(('python', *arguments)))}", soft_wrap=True)
    code = subprocess.run([sys.executable, *arguments], cwd=ROOT, check=False).returncode  # noqa: S603
    if code:
        raise SystemExit(code)


def prepare(console: Console, cache: Path) -> Path:
    """Writes the documents and builds the knowledge base, unless they are there and of this version.

    Args:
        console: Where the commands are shown.
        cache: Folder for both.

    Returns:
        Path of the knowledge base.
    """
    documents, knowledge_base = cache / "documents.jsonl", cache / "kb"
    options = ["--output", str(knowledge_base), "--dtype", "auto"]
    if knowledge_base.exists():
        try:
            KnowledgeBase.open(knowledge_base)
        except KnowledgeBaseError:  # of another version of ragweave, or damaged
            options.append("--overwrite")
        else:
            console.print(f"Using the knowledge base in {escape(str(knowledge_base))}", soft_wrap=True)
            return knowledge_base
    run(console, "examples/world_factbook/documents.py", str(documents))
    # bfloat16, where the processor has it, embeds more than twice as fast and finds the same passages.
    run(console, "-m", "ragweave", "index", str(documents), *options)
    return knowledge_base


def ask_all(pipeline: RagPipeline) -> list[Asked]:
    """Asks the questions one after another; a follow-up in a conversation with the question before.

    Args:
        pipeline: The pipeline with the Factbook's knowledge base.
    """
    asked = []
    for question in QUESTIONS:
        conversation = pipeline.chat()
        if question.follows:
            conversation.remember(asked[-1].answer)
        start = time.perf_counter()
        answer = conversation.ask(question.text, n_docs=5)
        asked.append(Asked(question, answer, time.perf_counter() - start))
    return asked


def table_of(asked: list[Asked]) -> Table:
    """Shows questions, answers and the passage that counted most for each.

    Args:
        asked: What was asked and answered.
    """
    table = Table(title="The CIA World Factbook", show_lines=True, expand=True)
    table.add_column("Question", ratio=3)
    table.add_column("Answer", ratio=2, style="bold")
    table.add_column("As expected?", ratio=2)
    table.add_column("Top passage", ratio=5)
    table.add_column("Posterior", justify="right")
    table.add_column("Seconds", justify="right")
    for item in asked:
        answer = item.answer
        gold = (*item.question.gold, "no answer")[0]
        expected = "[green]yes[/green]" if item.right else f"[red]no[/red]: {escape(gold)}"
        passage = max(answer.passages, key=lambda passage: passage.posterior, default=None)
        source = f"[cyan]{escape(passage.title)}[/cyan]\n" if passage else "none"
        source += escape(excerpt(passage.text, answer.answer)) if passage else ""
        posterior = f"{passage.posterior:.2f}" if passage else ""
        searched = "" if answer.question == item.question.text else f"\nsearched for: {answer.question}"
        table.add_row(
            escape(item.question.text + searched),
            escape(answer.answer),
            expected,
            source,
            posterior,
            f"{item.seconds:.1f}",
        )
    return table


def main() -> None:
    """Prepares the knowledge base, asks the questions and shows the answers."""
    parser = argparse.ArgumentParser(description="Ask the CIA World Factbook ten questions.")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder for documents and knowledge base")
    cache = parser.parse_args().cache.resolve()
    console = Console(width=None if sys.stdout.isatty() else 140)
    start = time.perf_counter()
    knowledge_base = prepare(console, cache)
    prepared = time.perf_counter()

    from ragweave import RagPipeline
    from ragweave.cli.console import quiet_libraries

    quiet_libraries()
    pipeline = RagPipeline.from_pretrained("embedded", knowledge_base=knowledge_base)
    loaded = time.perf_counter()
    asked = ask_all(pipeline)
    console.print(table_of(asked))
    right = sum(item.right for item in asked)
    console.print(
        f"[bold]{right} of {len(asked)} answers are as expected.[/bold] Preparation {prepared - start:.1f} s, "
        f"loading {loaded - prepared:.1f} s, first answer {asked[0].seconds:.1f} s, "
        f"each later answer {sum(item.seconds for item in asked[1:]) / (len(asked) - 1):.1f} s."
    )
    console.print(
        f"To go on:\n  . .venv/bin/activate\n  ragweave ask --kb {shlex.quote(str(knowledge_base))} "
        f'"What is the currency of Kenya?"\n  ragweave serve --kb {shlex.quote(str(knowledge_base))}',
        markup=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    main()
