"""``ragweave chat``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.text import Text

from ragweave.cli import options
from ragweave.cli.ask import print_passages
from ragweave.cli.console import stdout, warn
from ragweave.cli.pipelines import load_pipeline
from ragweave.errors import QuestionError

if TYPE_CHECKING:
    from ragweave.pipeline.answer_pipeline import AnswerPipeline
    from ragweave.provenance.answers import Answer

_HELP = "Ask a question. /sources shows the passages of the last answer, /new begins again, /quit ends."


def chat(
    context: typer.Context,
    kb: options.KnowledgeBaseOption,
    model: options.RagModel = "embedded",
    n_docs: options.NDocs = None,
    beams: options.Beams = 1,
    max_new_tokens: options.MaxNewTokens = 32,
    formulation: options.Reading = None,
    retrieval: options.Retrieval = None,
    fusion: options.FusedBy = "weighted",
    dense_weight: options.DenseWeight = None,
    candidates: options.Candidates = 100,
    where: options.Where = None,
    rerank: options.Rerank = None,
    extractive: options.Extractive = None,
    min_confidence: options.MinConfidence = None,
    answer_anyway: options.AnswerAnyway = False,
    calibration: options.Calibration = None,
    passage_cache: options.PassageCache = None,
    answer_style: options.AnswerLength = None,
    generator: options.GeneratorUrl = None,
    generator_model: options.GeneratorModel = None,
    generator_api: options.GeneratorApiKind = "chat",
    generator_key_file: options.GeneratorKeyFile = None,
    generator_timeout: options.GeneratorTimeout = 60.0,
    generator_requests: options.GeneratorRequests = None,
    dtype: options.GeneratorDtype = "auto",
    device: options.Device = None,
) -> None:
    """Hold a conversation about the documents of a knowledge base.

    A follow-up such as "and in Lyon?" is made into a question that stands alone, which is shown and searched for. If
    standard input is not a terminal, each of its lines is a question.

    Examples:
      ragweave chat --kb kb
      ragweave chat --kb kb --n-docs 10 --answer-anyway
      ragweave chat --kb kb < questions.txt
    """
    pipeline = load_pipeline(context.params)
    answering = {"n_docs": n_docs, "num_beams": beams, "max_new_tokens": max_new_tokens}
    talk = _Talk(pipeline, {**answering, "extractive": extractive})
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
        """Obey a command, or answer a question."""
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
    """The next line, without surrounding blanks; ``None`` at the end."""
    if not is_terminal:
        line = sys.stdin.readline()
        return line.strip() if line else None
    try:
        return console.input("> ").strip()
    except (EOFError, KeyboardInterrupt):
        console.print()
        return None
