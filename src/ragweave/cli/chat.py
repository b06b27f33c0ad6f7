"""``ragweave chat``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from ragweave.cli import options, takes_options
from ragweave.cli.ask import print_passages
from ragweave.cli.console import stdout, warn
from ragweave.cli.pipelines import AnswerOptions
from ragweave.errors import QuestionError

if TYPE_CHECKING:
    from ragweave.pipeline.answer_pipeline import AnswerPipeline
    from ragweave.provenance.answers import Answer

_HELP = "Ask a question. /sources shows the passages of the last answer, /new begins again, /quit ends."


@takes_options
def chat(
    kb: options.KnowledgeBaseOption,
    given: AnswerOptions,
    where: options.Where = None,
    extractive: options.Extractive = None,
) -> None:
    """Hold a conversation about the documents of a knowledge base.

    A follow-up such as "and in Lyon?" is made into a question that stands alone, which is shown and searched for. If
    standard input is not a terminal, each of its lines is a question.

    Examples:
      ragweave chat --kb kb
      ragweave chat --kb kb --n-docs 10 --answer-anyway
      ragweave chat --kb kb < questions.txt
    """
    pipeline = given.load(kb, where)
    talk = _Talk(pipeline, {**given.answering(), "extractive": extractive})
    is_terminal = sys.stdin.isatty()
    if is_terminal:
        talk.show(_HELP)
    while (line := _next_line(talk.console, is_terminal)) is not None and line != "/quit":
        talk.hear(line)


class _Talk:
    """A conversation in a terminal."""

    def __init__(self, pipeline: AnswerPipeline, answer_options: dict[str, Any]) -> None:
        self.console = stdout()
        self._conversation = pipeline.chat()
        self._options = answer_options
        self._answer: Answer | None = None

    def hear(self, line: str) -> None:
        """Run a command, or answer a question."""
        if line == "/new":
            self._conversation, self._answer = self._conversation.pipeline.chat(), None
        elif line == "/sources" and self._answer is not None:
            print_passages(self._answer, self.console, numbered=False)
        elif line == "/sources":
            self.show("There is no answer yet.")
        elif not line or line.startswith("/"):
            self.show(_HELP)
        else:
            try:
                self._ask(line)
            except QuestionError as error:
                warn(str(error))

    def show(self, text: str) -> None:
        """Print a remark."""
        self.console.print(Text(text, style="dim"))

    def _ask(self, line: str) -> None:
        from ragweave.pipeline.streaming import stream_answer

        question = self._conversation.standalone(line)
        if question != line:
            self.show(f"searched for: {question}")
        for piece in stream_answer(self._conversation.pipeline, question, **self._options):
            if isinstance(piece, str):
                self.console.print(Text(piece, style="bold"), end="")
            else:
                self._answer = piece
                self._conversation.remember(piece)
                self.console.print()
                self.show(piece.judgement)


def _next_line(console: Console, is_terminal: bool) -> str | None:
    """Read the next line, without surrounding blanks; ``None`` at the end."""
    if not is_terminal:
        line = sys.stdin.readline()
        return line.strip() if line else None
    try:
        return console.input("> ").strip()
    except (EOFError, KeyboardInterrupt):
        console.print()
        return None
