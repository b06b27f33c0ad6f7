"""Hearing what is being said, and stopping it: hooks of transformers' generation loops.

Notation used for tensor shapes: B questions, R rows of a search for each question.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria
from transformers.generation.streamers import BaseStreamer

_UNFINISHED = "\ufffd"  # what a tokenizer makes of a part of a character


class TokenListener(BaseStreamer):
    """Tells of the texts of B answers as their tokens are decided.

    Args:
        n_questions: B.
        tokenizer: The generator's tokenizer.
        ends: Token ids that end an answer.
        say: Called with a question's number and the text that comes next in its answer.
    """

    def __init__(
        self, n_questions: int, tokenizer: Any, ends: Collection[int], say: Callable[[int, str], None]
    ) -> None:
        self._tokenizer = tokenizer
        self._ends = ends
        self._say = say
        self._tokens: list[list[int]] = [[] for _ in range(n_questions)]
        self._ended = [False] * n_questions
        self._told = [""] * n_questions
        self._begun = False

    def put(self, value: Tensor) -> None:
        """Take the next token of every answer, (B,); the first time, what they begin with."""
        if not self._begun:
            self._begun = True
            return
        for question, token in enumerate(value.flatten().tolist()):
            if self._ended[question]:
                continue
            self._ended[question] = token in self._ends
            self._tokens[question].append(token)
            text = self._tokenizer.decode(self._tokens[question], skip_special_tokens=True)
            self._tell(question, text.strip().rstrip(_UNFINISHED))

    def end(self) -> None:
        """Do nothing: the end of an answer is told by who has the whole of it."""

    def finish(self, answers: Sequence[str]) -> None:
        """Tell what is left of the answers, now that they are known: all of them, where nothing was told before."""
        for question, answer in enumerate(answers):
            self._tell(question, answer)

    def _tell(self, question: int, text: str) -> None:
        told = self._told[question]
        if len(text) > len(told) and text.startswith(told):
            self._told[question] = text
            self._say(question, text[len(told) :])


class StoppedQuestions(StoppingCriteria):
    """Ends the answers of questions that nobody waits for any more.

    Args:
        n_questions: B.
        stopped: Whether a question, given by its number, is to be answered no further.
    """

    def __init__(self, n_questions: int, stopped: Callable[[int], bool]) -> None:
        self._n_questions = n_questions
        self._stopped = stopped

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Any:
        """Which of B*R rows end here, bool, (B*R,)."""
        stopped = [self._stopped(question) for question in range(self._n_questions)]
        rows = input_ids.shape[0] // self._n_questions
        return torch.tensor(stopped, device=input_ids.device).repeat_interleave(rows)
