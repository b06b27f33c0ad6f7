"""A listener that follows a batch of questions through a pipeline.

Notation used for tensor shapes: B questions, K passages per question.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from transformers import StoppingCriteriaList

from ragweave.modeling.token import RagTokenForGeneration
from ragweave.pipeline.token_streamer import StoppedQuestions, TokenListener
from ragweave.provenance.assembly import by_prior

if TYPE_CHECKING:
    from ragweave.modeling.generation import MixtureGeneration
    from ragweave.pipeline.streaming import Listener
    from ragweave.provenance.answers import Answer
    from ragweave.types import ScoredPassage


class Following:
    """Lets a listener follow a batch of B questions.

    Args:
        listener: Who listens.
        places: The questions' places in what was asked.
    """

    def __init__(self, listener: Listener, places: Sequence[int]) -> None:
        self._listener = listener
        self._places = places
        self._tokens: TokenListener | None = None

    def begin(
        self,
        model: MixtureGeneration,
        tokenizer: Any,
        passages: Sequence[Sequence[ScoredPassage | None]],
        options: dict[str, Any],
    ) -> None:
        """Tell of the passages, and add to the options of ``generate`` what will tell of the answers."""
        listener, places = self._listener, self._places
        for place, own in zip(places, passages, strict=True):
            listener.retrieved(place, by_prior(own))
        self._tokens = TokenListener(
            len(places), tokenizer, model.end_token_ids, lambda b, text: listener.said(places[b], text)
        )
        stopped = StoppedQuestions(len(places), lambda b: listener.stopped(places[b]))
        options["stopping_criteria"] = StoppingCriteriaList([*options.get("stopping_criteria", ()), stopped])
        # Beams and RAG-Sequence may still change the first token of an answer at its last.
        if isinstance(model, RagTokenForGeneration) and options["num_beams"] == 1:
            options["streamer"] = self._tokens

    def finish(self, answers: Sequence[Answer]) -> None:
        """Tell what is left of the answers."""
        if self._tokens is not None:
            self._tokens.finish([answer.answer for answer in answers])
