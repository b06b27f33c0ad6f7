"""Index the CIA World Factbook, ask eight questions, and show the passages behind each answer.

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

if TYPE_CHECKING:
    from ragweave import RagPipeline
    from ragweave.provenance.answers import Answer

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "world-factbook"
EXCERPT_CHARACTERS = 150

GOLD: dict[str, tuple[str, ...]] = {
    "Who wrote the national anthem of France?": ("Claude-Joseph ROUGET de Lisle", "Rouget de Lisle"),
    "What is the currency of Japan?": ("yen", "yen (JPY)", "Japanese yen"),
    "Which country buys most of Brazil's exports?": ("China",),
    "When did Kenya become independent?": ("12 December 1963", "1963"),
    "What is the capital of Mongolia?": ("Ulaanbaatar",),
    "What is the highest point in Iceland?": (
        "Hvannadalshnukur",
        "Hvannadalshnukur (at Vatnajokull Glacier)",
        "Hvannadalshnukur (at Vatnajokull Glacier) 2,110 m",
    ),
    "At what age can people vote in New Zealand?": ("18 years", "18 years of age", "18"),
    "What is the largest religion in Peru?": ("Catholic", "Catholic 76%", "Catholicism"),
}
"""The questions, of eight kinds and on eight countries that training never sees, and their right answers."""


@dataclass(frozen=True, slots=True)
class Asked:
    """An answer and how long it took.

    Attributes:
        answer: What the pipeline returned.
        right: Whether it is one of the right answers.
        seconds: Time from question to answer.
    """

    answer: Answer
    right: bool
    seconds: float


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
    """Writes the documents and builds the knowledge base, unless they are there.

    Args:
        console: Where the commands are shown.
        cache: Folder for both.

    Returns:
        Path of the knowledge base.
    """
    documents, knowledge_base = cache / "documents.jsonl", cache / "kb"
    if knowledge_base.exists():
        console.print(f"Using the knowledge base in {escape(str(knowledge_base))}", soft_wrap=True)
        return knowledge_base
    run(console, "examples/world_factbook/documents.py", str(documents))
    # bfloat16, where the processor has it, embeds more than twice as fast and finds the same passages.
    run(
        console,
        *("-m", "ragweave", "index", str(documents), "--output", str(knowledge_base), "--dtype", "auto"),
    )
    return knowledge_base


def ask_all(pipeline: RagPipeline) -> list[Asked]:
    """Asks the eight questions, one after another.

    Args:
        pipeline: The pipeline with the Factbook's knowledge base.
    """
    asked = []
    for question, gold in GOLD.items():
        start = time.perf_counter()
        answer = pipeline([question], n_docs=5, num_beams=1)[0]
        asked.append(Asked(answer, is_right(answer.answer, gold), time.perf_counter() - start))
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
        expected = (
            "[green]yes[/green]" if item.right else f"[red]no[/red]: {escape(GOLD[answer.question][0])}"
        )
        passage = max(answer.passages, key=lambda passage: passage.posterior, default=None)
        source = f"[cyan]{escape(passage.title)}[/cyan]\n" if passage else "none"
        source += escape(excerpt(passage.text, answer.answer)) if passage else ""
        posterior = f"{passage.posterior:.2f}" if passage else ""
        table.add_row(
            escape(answer.question), escape(answer.answer), expected, source, posterior, f"{item.seconds:.1f}"
        )
    return table


def main() -> None:
    """Prepares the knowledge base, asks the questions and shows the answers."""
    parser = argparse.ArgumentParser(description="Ask the CIA World Factbook eight questions.")
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
        f"[bold]{right} of {len(asked)} answers are right.[/bold] Preparation {prepared - start:.1f} s, "
        f"loading {loaded - prepared:.1f} s, first answer {asked[0].seconds:.1f} s, "
        f"each later answer {sum(item.seconds for item in asked[1:]) / (len(asked) - 1):.1f} s."
    )


if __name__ == "__main__":
    main()
