"""Search for answers, token by token: greedy, with beams, or by drawing. It needs numpy alone.

A step of the network gives scores; which beams live on is told by the rules of transformers' loops, so that the same
scores lead to the same tokens.

Notation used for array shapes
    N searches side by side, R rows (beams or samples) of each, t tokens so far, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ragweave.tf.options import Ids, Processor, Scores, SearchOptions
from ragweave.tf.processors import log_softmax, warped

Step = Callable[[Ids, NDArray[np.int32] | None], Scores]
"""From the newest token of every row, (N*R,), and the row that each continues, (N*R,) or None where each continues
itself, to the scores of what may follow, (N*R, V)."""

_NO_SCORE = -1e9


@dataclass(frozen=True, slots=True)
class Answer:
    """What a search found.

    Attributes:
        tokens: Its tokens, start token included.
        log_probs: Log-probabilities of all tokens but the first, before any processor.
        score: What it was ranked by; NaN where nothing was ranked.
    """

    tokens: tuple[int, ...]
    log_probs: tuple[float, ...]
    score: float = float("nan")


@dataclass(frozen=True, slots=True)
class _Beam:
    """A row of a search: what it has said, and the sum of the log-probabilities that the search gave it."""

    tokens: tuple[int, ...]
    log_probs: tuple[float, ...] = ()
    total: float = 0.0

    def followed(self, token: int, log_prob: float, total: float) -> _Beam:
        return _Beam((*self.tokens, token), (*self.log_probs, log_prob), total)

    def answer(self, score: float) -> Answer:
        return Answer(self.tokens, self.log_probs, score)


def search(
    step: Step,
    n_searches: int,
    options: SearchOptions,
    processors: Sequence[Processor] = (),
    rng: np.random.Generator | None = None,
) -> list[list[Answer]]:
    """Search.

    Args:
        step: Scores what may follow.
        n_searches: N.
        options: How to search. There are ``num_beams`` rows of each search, or ``num_return_sequences`` of a search
            that draws.
        processors: What changes the scores.
        rng: Where a search that draws takes chance from.

    Returns:
        For each search ``num_return_sequences`` answers, best first.
    """
    if options.num_beams > 1:
        return _beam_search(step, n_searches, options, processors)
    return _one_by_one(step, n_searches, options, processors, rng or np.random.default_rng())


def _one_by_one(
    step: Step,
    n_searches: int,
    options: SearchOptions,
    processors: Sequence[Processor],
    rng: np.random.Generator,
) -> list[list[Answer]]:
    """Greedy search, or drawing: every row goes its own way."""
    rows = [_Beam((options.start,)) for _ in range(n_searches * options.num_return_sequences)]
    newest = np.full(len(rows), options.start, dtype=np.int64)
    ids = newest[:, None]
    open_ = np.ones(len(rows), dtype=bool)
    while open_.any() and ids.shape[1] < options.max_length:
        scores = step(newest, None)
        log_probs = log_softmax(scores)
        for process in processors:
            scores = process(ids, scores)
        newest = _drawn(warped(scores, options), rng) if options.do_sample else scores.argmax(axis=1)
        for row in open_.nonzero()[0]:
            token = int(newest[row])
            rows[row] = rows[row].followed(token, float(log_probs[row, token]), 0.0)
        newest = np.where(open_, newest, options.pad)
        ids = np.concatenate([ids, newest[:, None]], axis=1)
        open_ &= ~np.isin(newest, options.ends)
    answers = [row.answer(float("nan")) for row in rows]
    size = options.num_return_sequences
    return [answers[start : start + size] for start in range(0, len(answers), size)]


def _drawn(scores: Scores, rng: np.random.Generator) -> Ids:
    """One token of each row by its probability, (N,): the likeliest after noise of Gumbel's distribution."""
    drawn: Ids = (scores + rng.gumbel(size=scores.shape)).argmax(axis=1)
    return drawn


@dataclass
class _BeamSearch:
    """One search with beams.

    Attributes:
        options: How to search.
        running: The R beams that live, best first.
        finished: At most R answers, best first.
        open: Whether something better than what is finished may come.
    """

    options: SearchOptions
    running: list[_Beam]
    finished: list[Answer] = field(default_factory=list)
    open: bool = True

    @property
    def full(self) -> bool:
        """Whether there are R answers."""
        return len(self.finished) == self.options.num_beams

    def advance(self, candidates: list[tuple[int, _Beam]]) -> list[int]:
        """Go on with some of the best continuations.

        Args:
            candidates: Continuations of beams, with the number of the beam that each continues, best first; more of
                them than beams, so that enough are left where some end.

        Returns:
            Which beam each beam that lives now continues.
        """
        options, length = self.options, len(candidates[0][1].tokens)
        ends = [length >= options.max_length or beam.tokens[-1] in options.ends for _, beam in candidates]
        may_finish = self.open and not (self.full and options.early_stopping is True)
        if may_finish:
            penalty = (length - 1) ** options.length_penalty
            done = [
                beam.answer(beam.total / penalty)
                for (_, beam), end in zip(candidates[: options.num_beams], ends, strict=False)
                if end
            ]
            # Sorting is stable: of equals the one that was first stays first.
            self.finished = sorted([*self.finished, *done], key=lambda own: -own.score)[: options.num_beams]
        order = sorted(range(len(candidates)), key=lambda place: ends[place])[: options.num_beams]
        self.running = [candidates[place][1] for place in order]
        if all(ends[place] for place in order[:1]):  # nothing lives
            self.open = False
        elif self.full:
            longest = options.early_stopping == "never" and options.length_penalty > 0.0
            best_length = (options.max_length if longest else length) - 1
            best = self.running[0].total / best_length**options.length_penalty
            self.open = self.open and best > self.finished[-1].score
        return [candidates[place][0] for place in order]

    @property
    def done(self) -> bool:
        """Whether nothing can change any more."""
        return not self.open or (self.full and self.options.early_stopping is True)


def _beam_search(
    step: Step, n_searches: int, options: SearchOptions, processors: Sequence[Processor]
) -> list[list[Answer]]:
    size = options.num_beams
    kept = max(2, 1 + len(options.ends)) * size
    # All beams begin alike: only the first is gone on with.
    begun = [_Beam((options.start,), total=0.0 if row == 0 else _NO_SCORE) for row in range(size)]
    searches = [_BeamSearch(options, list(begun)) for _ in range(n_searches)]
    parents: NDArray[np.int32] | None = None
    while not all(own.done for own in searches):
        ids = np.array([beam.tokens for own in searches for beam in own.running], dtype=np.int64)
        log_probs = log_softmax(step(ids[:, -1], parents))
        scores = log_probs
        for process in processors:
            scores = process(ids, scores)
        vocabulary = scores.shape[1]
        totals = np.array([[beam.total for beam in own.running] for own in searches], dtype=np.float32)
        sums = (scores.reshape(n_searches, size, vocabulary) + totals[..., None]).reshape(n_searches, -1)
        best = _best(sums, kept)
        following = []
        for number, own in enumerate(searches):
            candidates = []
            for place in best[number].tolist():
                beam, token = divmod(place, vocabulary)
                raw = float(log_probs[number * size + beam, token])
                candidates.append((beam, own.running[beam].followed(token, raw, float(sums[number, place]))))
            following += [number * size + beam for beam in own.advance(candidates)]
        parents = np.array(following, dtype=np.int32)
    return [own.finished[: options.num_return_sequences] for own in searches]


def _best(values: Scores, count: int) -> NDArray[np.int64]:
    """Places of the highest values of each row, highest first, (N, count)."""
    count = min(count, values.shape[1])
    some = np.argpartition(values, -count, axis=1)[:, -count:]
    order = np.argsort(-np.take_along_axis(values, some, axis=1), axis=1, kind="stable")
    places: NDArray[np.int64] = np.take_along_axis(some, order, axis=1)
    return places
